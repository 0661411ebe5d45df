import type { Connector } from "../connector/connector.ts";
import type { UpstreamSecrets } from "../connector/platform.ts";
import type { SendExchange } from "../credentials/exchange.ts";
import { LoginError } from "../credentials/login.ts";
import { userAgent } from "../version.ts";
import { fetchResponse } from "./fetch-response.ts";
import { retryDelayMs } from "./retry-after.ts";
import type { Upstreams } from "./upstream.ts";
import { unreachable } from "./upstream-error.ts";

const maxResponseBytes = 256 * 1024;

/**
 * Makes what sends the exchange of a connector's token: by connections to the connector's own registry, with its address
 * guard and the certificates that it trusts.
 * @param secrets its certificates; a credential in it is not sent
 */
export function createExchangeClient(
  upstreams: Upstreams,
  connector: Connector,
  secrets: UpstreamSecrets,
): SendExchange {
  return async ({ method, url, headers, body }, signal) => {
    const { send, guard } = upstreams.of(connector, { ...secrets, credential: undefined });
    const request = {
      method,
      url,
      headers: { "user-agent": userAgent, ...headers },
      ...(body === undefined ? {} : { body: Buffer.from(body) }),
    };
    try {
      const response = await fetchResponse(request, {
        send,
        signal,
        maxBodyBytes: () => maxResponseBytes,
      });
      return {
        status: response.status,
        text: response.body?.toString("utf8"),
        retryAfterMs: retryDelayMs(response.status, response.headers, Date.now()),
      };
    } catch (error) {
      signal.throwIfAborted();
      const isConcealed = guard.isConcealed(url);
      const { message, detail, cause } = unreachable(
        `the registry ${url.origin}`,
        error,
        isConcealed,
      );
      const text = detail === undefined ? message : `${message}; ${detail}`;
      throw new LoginError("ExchangeFailed", text, { cause, isTransient: true });
    }
  };
}
