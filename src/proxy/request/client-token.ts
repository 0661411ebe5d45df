/** The token in an Authorization header: behind `Bearer`, or as the password behind `Basic`, whatever its user. */
export function clientToken(authorization: string | undefined): string | undefined {
  const match = /^(basic|bearer) +([A-Za-z0-9._~+/-]+=*) *$/i.exec(authorization ?? "");
  if (match === null) return undefined;
  const [, scheme = "", value = ""] = match;
  if (scheme.toLowerCase() === "bearer") return value;
  const pair = Buffer.from(value, "base64").toString("utf8");
  const colon = pair.indexOf(":"); // RFC 7617, section 2: the first colon ends the user
  const token = colon < 0 ? "" : pair.slice(colon + 1);
  return token === "" ? undefined : token;
}

/** One challenge, and Basic: every client can answer it, and none goes to a token server of its own (RFC 9110, section 11.6.1). */
export const basicChallenge = 'Basic realm="connectors-proxy"';
