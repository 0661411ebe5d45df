import { createServer as createHttp, type RequestListener, type Server } from "node:http";
import { createServer as createHttps } from "node:https";
import type { AddressInfo } from "node:net";
import type { KeyPair } from "../../src/certificate-authority.ts";

/** What a client has asked, as far as it matters who was asked for what, and with which credential. */
export interface RecordedRequest {
  /** `GET /v2/`, `GET http://registry/v2/` of a client that takes this for a proxy, `CONNECT registry:443`. */
  readonly line: string;
  readonly host: string | undefined;
  /** Decoded: `user:password`; undefined where there was none. */
  readonly login: string | undefined;
}

export interface RecordingRegistry {
  /** `127.0.0.1:34567` */
  readonly host: string;
  readonly requests: RecordedRequest[];
  stop(): Promise<void>;
}

const manifest = JSON.stringify({
  schemaVersion: 2,
  mediaType: "application/vnd.oci.image.manifest.v1+json",
  config: {
    mediaType: "application/vnd.oci.image.config.v1+json",
    digest: `sha256:${"0".repeat(64)}`,
    size: 2,
  },
  layers: [],
});

/**
 * A server that remembers all requests, wants Basic credentials, and knows one manifest, under every
 * path that `knows` says yes to. As a proxy it plays the registry for http:// and refuses to CONNECT.
 */
export async function startRecordingRegistry(
  knows: (path: string) => boolean = () => true,
  tls?: KeyPair,
): Promise<RecordingRegistry> {
  const requests: RecordedRequest[] = [];
  const record = (
    line: string,
    host: string | undefined,
    credentials: string | undefined,
  ): void => {
    const [, encoded] = credentials?.split(" ") ?? [];
    const login = encoded === undefined ? undefined : Buffer.from(encoded, "base64").toString();
    requests.push({ line, host, login });
  };
  const onRequest: RequestListener = ({ method, url = "", headers }, response) => {
    record(`${method} ${url}`, headers.host, headers.authorization);
    const path = URL.parse(url, "http://registry")?.pathname ?? "";
    if (headers.authorization === undefined) {
      response.writeHead(401, { "www-authenticate": 'Basic realm="test"' }).end();
    } else if (path === "/v2/") {
      response.end("{}");
    } else if (path.includes("/manifests/") && knows(path)) {
      const type = "application/vnd.oci.image.manifest.v1+json";
      response.writeHead(200, { "content-type": type }).end(manifest);
    } else {
      response.writeHead(404, { "content-type": "application/json" });
      response.end('{"errors":[{"code":"MANIFEST_UNKNOWN","message":"not here"}]}');
    }
  };
  const server: Server = tls
    ? createHttps({ cert: tls.certificate, key: tls.privateKey }, onRequest)
    : createHttp(onRequest);
  server.on("connect", ({ url, headers }, socket) => {
    record(`CONNECT ${url}`, headers.host, headers["proxy-authorization"]);
    socket.end("HTTP/1.1 502 Bad Gateway\r\n\r\n");
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
