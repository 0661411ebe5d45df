import type { LoginResponse, RequestLogin } from "./request-login.ts";
import { UpstreamError } from "./upstream-error.ts";

/**
 * Sends a request with the connector's login, and again where a refusal leads to a better one.
 * @param send sends it with an Authorization header
 * @returns the last response; where a login that the registry had not asked for was refused, the 404 that came without it
 * @throws UpstreamError, and what `send` throws
 */
export async function sendWithLogin<Response extends LoginResponse>(
  login: RequestLogin,
  send: (authorization: string | undefined) => Promise<Response>,
): Promise<Response> {
  try {
    const response = await send(await login.authorization());
    return await sendAgain(login, send, response);
  } finally {
    login.end();
  }
}

async function sendAgain<Response extends LoginResponse>(
  login: RequestLogin,
  send: (authorization: string | undefined) => Promise<Response>,
  first: Response,
): Promise<Response> {
  let missing: Response | undefined;
  let response = first;
  while (await login.learnFrom(response)) {
    if (response.status === 404) missing = response;
    const next = await login.authorization().catch((error: unknown) => {
      if (login.isOptional && error instanceof UpstreamError) return error;
      throw error;
    });
    if (next instanceof UpstreamError) return missing ?? response;
    response = await send(next);
  }
  const isRefused = response.status === 401 || response.status === 403;
  return isRefused ? (missing ?? response) : response;
}
