import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { Target } from "./attacker-process.ts";
import {
  type Count,
  flood,
  forEver,
  keepConnected,
  oneAtATime,
  tenantClient,
} from "./connections.ts";
import { blobDigest } from "./hostile-registry.ts";

/** One way to take something from others. */
export interface Attack {
  readonly name: string;
  /** What the proxy runs in. */
  readonly setup: "standalone" | "cluster";
  /** `spec.params` of the attacker's connector. */
  readonly params?: readonly { readonly name: string; readonly value: string }[];
  /** From then on the API server publishes the keys of its tokens, so that a forged one needs no review. */
  readonly publishesKeys?: boolean;
  /** Each role is started anew beside what the attack has made, and has to become ready. */
  readonly restartsRoles?: boolean;
  /** Goes on until the process ends. */
  run(target: Target, count: Count): void;
}

const mebibyte = 1024 * 1024;

/** Rules with 64 KiB of patterns that many paths nearly match, and one for the way to the registry. */
const rules = JSON.stringify([
  { verbs: ["pull"], repositories: ["lead"] },
  {
    verbs: ["pull"],
    repositories: Array.from({ length: 999 }, (_, index) => {
      const part = `${"**/a/".repeat(11)}b${index}`;
      return part.slice(0, 65);
    }),
  },
]);

/** A repository's name of 255 characters, another one each time. */
function* nestedNames(): Generator<string> {
  for (let number = 0; ; number += 1) yield `${"a/".repeat(122)}${number % 1e9}`;
}

const numbers = (length: number): readonly number[] => Array.from({ length }, (_, index) => index);

/** Query parameters that a client adds: far too many, and as many as it may. */
const addedQueries = [7_000, 64].map((length) =>
  numbers(length)
    .map((index) => `c${index}`)
    .join("&"),
);

/** What looks like the token of a ServiceAccount: nobody can tell without the API server that it is none. */
function junkToken(): string {
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  const expiry = Math.floor(Date.now() / 1000) + 3600;
  return [
    part({ alg: "RS256", kid: "key-1" }),
    part({ aud: ["connectors-proxy"], exp: expiry, sub: "system:serviceaccount:team-c:x" }),
    randomBytes(64).toString("base64url"),
  ].join(".");
}

const getWith = (path: string, token: string): string =>
  `GET ${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\n\r\n`;

const connectorsPath = "/apis/connectors.alauda.io/v1alpha1/namespaces/team-a/connectors";

/** Writes a Connector of the attacker's namespace to the API server, one at a time. */
async function writeConnector(
  { api }: Target,
  name: string,
  fields: { readonly metadata?: object; readonly spec: object },
  count: Count,
): Promise<void> {
  const response = await fetch(`${api}${connectorsPath}/${name}?fieldManager=tenant&force=true`, {
    method: "PATCH",
    headers: { "content-type": "application/apply-patch+yaml" },
    body: JSON.stringify({
      apiVersion: "connectors.alauda.io/v1alpha1",
      kind: "Connector",
      metadata: { name, namespace: "team-a", ...fields.metadata },
      spec: { connectorClassName: "oci", ...fields.spec },
    }),
  });
  await response.arrayBuffer();
  count(`Connectors written: ${response.status}`);
}

export const attacks: readonly Attack[] = [
  {
    name: "1: tokens of junk, pipelined",
    setup: "cluster",
    run: (target, count) =>
      keepConnected(
        target,
        8,
        flood(() => getWith("/v2/", junkToken()), count),
        count,
      ),
  },
  {
    name: "1: tokens of junk, where the API server publishes its keys",
    setup: "cluster",
    publishesKeys: true,
    run: (target, count) =>
      keepConnected(
        target,
        8,
        flood(() => getWith("/v2/", junkToken()), count),
        count,
      ),
  },
  {
    name: "2: connectors that do not exist, pipelined",
    setup: "cluster",
    run(target, count) {
      let number = 0;
      const next = (): string => {
        number += 1;
        const namespace = number % 2 === 0 ? "team-a" : `team-a-${number}`;
        const path = `/v2/namespaces/${namespace}/connectors/none-${number}/app/manifests/1`;
        return getWith(path, target.token);
      };
      keepConnected(target, 8, flood(next, count), count);
    },
  },
  {
    name: "3: requests of 27 bytes, pipelined, and one at a time on 64 connections",
    setup: "standalone",
    run(target, count) {
      const next = (): string => "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
      keepConnected(target, 1, flood(next, count), count);
      keepConnected(target, 64, oneAtATime(next, count), count);
    },
  },
  {
    name: "4: Connectors of a megabyte",
    setup: "cluster",
    restartsRoles: true,
    run(target, count) {
      let number = 0;
      const value = "x".repeat(mebibyte - 1000);
      forEver(1, async () => {
        number += 1;
        const isAnnotation = number % 2 === 0;
        await writeConnector(
          target,
          `large-${number % 70}`,
          {
            metadata: { annotations: { number: `${number}`, ...(isAnnotation && { value }) } },
            spec: {
              address: target.registry,
              params: isAnnotation ? [] : [{ name: "unknown", value }],
            },
          },
          count,
        );
      });
    },
  },
  {
    name: "5: rules that are dear to check",
    setup: "standalone",
    params: [{ name: "rules", value: rules }],
    run(target, count) {
      const names = nestedNames();
      const next = (): string =>
        getWith(`${target.base}/${names.next().value}/manifests/1`, target.token);
      keepConnected(target, 8, flood(next, count), count);
    },
  },
  {
    name: "6: upload URLs with thousands of parameters",
    setup: "standalone",
    run(target, count) {
      const request = tenantClient(target, 16, count);
      let number = 0;
      forEver(16, async () => {
        const begun = await request("POST", `${target.base}/app/blobs/uploads/`);
        const { location } = begun?.headers ?? {};
        if (location === undefined) return;
        number += 1;
        const added = addedQueries[number % addedQueries.length];
        for (const method of ["PATCH", "GET", "PUT"]) {
          await request(method, `${location}${location.includes("?") ? "&" : "?"}${added}`);
        }
      });
    },
  },
  {
    name: "7: pushes of manifests that never end",
    setup: "standalone",
    run(target, count) {
      const size = 8 * mebibyte;
      const most = Buffer.alloc(size - 40, " ");
      keepConnected(
        target,
        64,
        (socket) => {
          socket.write(
            `PUT ${target.base}/app/manifests/1 HTTP/1.1\r\nHost: x\r\nContent-Length: ${size}\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\nAuthorization: Bearer ${target.token}\r\n\r\n`,
          );
          socket.write(most, () => count("pushes that are all but done"));
          const timer = setInterval(() => socket.write(" "), 20_000);
          socket.once("close", () => clearInterval(timer));
          socket.once("data", (head: Buffer) => {
            count(`status ${head.toString("latin1", 9, 12)}`);
            socket.destroy();
          });
        },
        count,
      );
    },
  },
  {
    name: "8: large registry tokens, one for each repository",
    setup: "standalone",
    run(target, count) {
      const request = tenantClient(target, 16, count);
      let number = 0;
      forEver(16, () => {
        number += 1;
        return request("GET", `${target.base}/tokens/r${number}/manifests/1`);
      });
    },
  },
  {
    name: "9: Connectors whose registry never answers",
    setup: "cluster",
    run(target, count) {
      let number = 0;
      forEver(1, async () => {
        number += 1;
        const spec = { address: `${target.registry}/silent` };
        const metadata = { annotations: { number: `${number}` } };
        await writeConnector(target, `silent-${number % 200}`, { metadata, spec }, count);
        if (number > 200) await sleep(20); // a real API server takes no more of a tenant either
      });
    },
  },
  {
    name: "blobs: pulled and pushed on 256 connections",
    setup: "standalone",
    run(target, count) {
      const request = tenantClient(target, 256, count);
      const path = `${target.base}/blobs/blobs/`;
      const digest = blobDigest();
      forEver(128, () => request("GET", `${path}${digest}`));
      const content = "x".repeat(4 * mebibyte);
      forEver(128, async () => {
        const begun = await request("POST", `${path}uploads/`);
        const { location } = begun?.headers ?? {};
        if (location !== undefined) await request("PATCH", location, content);
      });
    },
  },
  {
    name: "18: connections that say nothing",
    setup: "standalone",
    run: (target, count) => keepConnected(target, 4_300, () => {}, count),
  },
];
