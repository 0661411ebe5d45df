/** Requests as hostile clients write them: most are right but for a thing or two, so that they get far. */
import fc from "fast-check";

/** What a client has, and what it would like to have. */
export interface Vocabulary {
  /** Its token. */
  readonly token: string;
  /** `127.0.0.1:34567`: a host that nobody may be sent to. */
  readonly foreign: string;
  /** The registry's own. */
  readonly upstream: string;
  /** Uploads that have begun: an own one, and another tenant's. */
  readonly sessions: readonly string[];
}

const digest = `sha256:${"0".repeat(64)}`;
const crlf = "\r\n";

export function requestBytes(vocabulary: Vocabulary): fc.Arbitrary<string> {
  const request = fc
    .record({
      method: methods,
      target: targetsOf(vocabulary),
      version: fc.oneof(
        { weight: 100, arbitrary: fc.constant("HTTP/1.1") },
        fc.constantFrom(
          "HTTP/1.0",
          "HTTP/0.9",
          "HTTP/2.0",
          "HTTP/1.2",
          "http/1.1",
          "",
          "HTTP/1.1 x",
        ),
      ),
      headers: headersOf(vocabulary),
      end: fc.oneof(
        { weight: 100, arbitrary: fc.constant(crlf) },
        fc.constantFrom("\n", "\r", "\r\r\n", "\n\r", " \r\n", "\0\r\n"),
      ),
      body: bodies(vocabulary),
    })
    .map(({ method, target, version, headers, end, body }) =>
      [`${method} ${target} ${version}`, ...headers, "", ""].join(end).concat(body),
    );
  return fc.oneof(
    { weight: 16, arbitrary: request },
    { weight: 2, arbitrary: fc.tuple(request, request).map((pair) => pair.join("")) },
    { weight: 2, arbitrary: damaged(request) },
    { weight: 1, arbitrary: fc.string({ unit: "binary", maxLength: 200 }) },
  );
}

const methods = fc.oneof(
  {
    weight: 40,
    arbitrary: fc.constantFrom("GET", "GET", "POST", "HEAD", "PUT", "PATCH", "DELETE"),
  },
  fc.constantFrom(
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "PRI",
    "get",
    "GE T",
    "G\tET",
    "",
    "MOVE",
    "M-SEARCH",
  ),
);

/** A few bytes are others, gone, or there twice. */
const damaged = (requests: fc.Arbitrary<string>): fc.Arbitrary<string> =>
  fc
    .tuple(
      requests,
      fc.array(fc.tuple(fc.nat(600), fc.nat(3), fc.string({ unit: "binary", maxLength: 3 })), {
        minLength: 1,
        maxLength: 3,
      }),
    )
    .map(([text, changes]) =>
      changes.reduce(
        (before, [at, length, put]) => before.slice(0, at) + put + before.slice(at + length),
        text,
      ),
    );

function targetsOf({ foreign, upstream, sessions }: Vocabulary): fc.Arbitrary<string> {
  const own = "/v2/namespaces/team-a/connectors/own/";
  const victim = "/v2/namespaces/team-a/connectors/victim/";
  const prefix = fc.oneof(
    { weight: 50, arbitrary: fc.constant(own) },
    fc.constantFrom(
      victim,
      "/v2/",
      `${own}../victim/`,
      `${own}%2e%2e/victim/`,
      `//v2/namespaces/team-a/connectors/own/`,
      `/v2/namespaces/team-a/connectors/own%2fx/`,
      `/v2/namespaces/team-a/connectors/own,victim/`,
      "/base/v2/",
      "/victim/v2/",
    ),
  );
  const component = fc.oneof(
    { weight: 8, arbitrary: fc.constantFrom("own", "app", "web") },
    fc.constantFrom(
      ...["private", "..", ".", "%2e%2e", "..%2f", "", "\\..\\", ";", "_catalog", "manifests"],
      ...["blobs", "uploads", "tags", "%00", "\x7f", "é", "a b", "?", "#", "own%2f", "OWN", "v2"],
    ),
  );
  const repository = fc.oneof(
    { weight: 20, arbitrary: fc.constantFrom("own/app", "own/web/app") },
    { weight: 1, arbitrary: fc.constant("private/app") },
    { weight: 4, arbitrary: fc.array(component, { maxLength: 5 }).map((parts) => parts.join("/")) },
  );
  const last = fc.oneof(
    { weight: 10, arbitrary: fc.constantFrom("tags/list", "manifests/1", `blobs/${digest}`) },
    { weight: 6, arbitrary: fc.constant("blobs/uploads/") },
    {
      weight: 4,
      arbitrary: fc.constantFrom(...sessions).map((session) => `blobs/uploads/${session}`),
    },
    fc.constantFrom(`manifests/${digest}`, `referrers/${digest}`, "blobs/uploads", "_catalog", "x"),
    fc.constantFrom("manifests/..", "blobs/uploads/..", "tags/list/", "manifests/%2e%2e%2f1"),
  );
  const key = fc.constantFrom(
    ...[
      "mount",
      "from",
      "origin",
      "digest",
      "ns",
      "n",
      "last",
      "_state",
      "fr%6fm",
      "from[]",
      "tag",
    ],
  );
  const value = fc.constantFrom(
    ...[digest, "own/app", "private/app", "namespaces/team-a/connectors/victim/private/app"],
    ...["namespaces/team-a/connectors/own/own/app", "..%2fprivate", "", "x&from=private/app", "%"],
    ...["%0d%0aOCI-Inner:%20yes", foreign, upstream, "own%2Fapp", "own/app%00private/app"],
  );
  const query = fc.oneof(
    { weight: 5, arbitrary: fc.constant("") },
    fc
      .array(fc.tuple(key, value), { minLength: 1, maxLength: 4 })
      .map((pairs) => `?${pairs.map((pair) => pair.join("=")).join("&")}`),
  );
  const path = fc
    .tuple(prefix, repository, last, query)
    .map(([start, name, end, rest]) => `${start}${name}/${end}${rest}`);
  const host = fc.constantFrom(
    ...[foreign, upstream, "c-own.team-a.svc", "c-victim.team-a.svc", "u:p@c-own.team-a.svc"],
    ...["localhost", "0x7f.1", "2130706433", "[::1]", "metadata.test", `x@${foreign}`],
  );
  const absolute = fc
    .tuple(fc.constantFrom("http://", "https://", "HTTP://", "ftp://", "//"), host, path)
    .map((parts) => parts.join(""));
  return fc.oneof(
    { weight: 50, arbitrary: path },
    { weight: 8, arbitrary: absolute },
    fc.constantFrom("*", "/", "/v2/", "/v2", foreign, upstream, `${own}`, "own/app/tags/list"),
  );
}

function headersOf({ token, foreign, upstream }: Vocabulary): fc.Arbitrary<string[]> {
  const basic = (text: string): string => Buffer.from(text).toString("base64");
  const authorization = fc.oneof(
    { weight: 60, arbitrary: fc.constant([`Authorization: Bearer ${token}`]) },
    fc.constantFrom(
      [`Authorization: Basic ${basic(`x:${token}`)}`],
      [`Proxy-Authorization: Basic ${basic(`team-a%2Fown:${token}`)}`],
      [`Proxy-Authorization: Basic ${basic(`team-a%2Fown,team-a%2Fvictim:${token}`)}`],
      [
        `Authorization: Bearer ${token}`,
        `Proxy-Authorization: Basic ${basic(`team-a%2Fown:${token}`)}`,
      ],
      [`Authorization: Bearer ${token}`, "Authorization: Bearer x"],
      [`Authorization: Bearer ${token},Bearer x`],
      [`authorization:Bearer\t${token}`],
      [`Authorization: Basic ${basic("mallory:secret-of-mallory")}`],
      [],
    ),
  );
  const hosts = fc.oneof(
    { weight: 60, arbitrary: fc.constant(["Host: x"]) },
    fc.constantFrom(
      ["Host: c-own.team-a.svc"],
      ["Host: c-victim.team-a.svc"],
      [`Host: ${foreign}`],
      [`Host: ${upstream}`],
      ["Host: c-own.team-a.svc", "Host: c-victim.team-a.svc"],
      ["Host: c-own.team-a.svc,c-victim.team-a.svc"],
      ["Host:"],
      ["Host: a/b?c#d"],
      [],
    ),
  );
  const framing = fc.oneof(
    { weight: 60, arbitrary: fc.constant([]) },
    { weight: 10, arbitrary: fc.constant(["Transfer-Encoding: chunked"]) },
    { weight: 4, arbitrary: fc.nat(200).map((length) => [`Content-Length: ${length}`]) },
    fc.constantFrom(
      ["Content-Length: 5", "Transfer-Encoding: chunked"],
      ["Transfer-Encoding: chunked", "Content-Length: 5"],
      ["Content-Length: 0", "Content-Length: 60"],
      ["Content-Length: 0, 60"],
      ["Content-Length: +5"],
      ["Content-Length: 0x5"],
      ["Content-Length: 5 5"],
      ["Content-Length : 5"],
      ["Content-Length: -1"],
      ["Content-Length: 99999999999999999999"],
      ["Content-Length: 60", "Expect: 100-continue"],
      ["Transfer-Encoding: xchunked"],
      ["Transfer-Encoding: gzip, chunked"],
      ["Transfer-Encoding: chunked, identity"],
      ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
      ["Transfer-Encoding:\tchunked"],
      ["Transfer-Encoding:", " chunked"],
      ["Transfer-Encoding: \x0bchunked"],
      ["Transfer_Encoding: chunked"],
    ),
  );
  const other = fc.constantFrom(
    "Connection: close",
    "Connection: keep-alive",
    "Connection: authorization",
    "Connection: authorization, host, content-length, user-agent",
    "Connection: upgrade",
    "Upgrade: websocket",
    "Upgrade: h2c",
    "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
    "Proxy-Connection: keep-alive",
    "Proxy-Authorization: Basic eDp5",
    `X-Forwarded-Host: ${foreign}`,
    "X-Forwarded-Proto: https",
    `Forwarded: host=${foreign}`,
    "X-Original-URL: /victim/v2/private/app/tags/list",
    "X-Rewrite-URL: /victim/v2/private/app/tags/list",
    "X-HTTP-Method-Override: DELETE",
    "Cookie: session=secret",
    "Expect: 100-continue",
    "Expect: x",
    "TE: trailers",
    "Trailer: Authorization",
    "Range: bytes=0-,5-9,100000000000-",
    "Range: bytes=9-5",
    "Accept: */*",
    "Content-Type: application/vnd.oci.image.manifest.v1+json",
    "Content-Range: 0-4",
    "User-Agent: oci-connector",
    "User-Agent: \xff",
    "Via: 1.1 x",
    "Max-Forwards: 0",
    "X: a\rOCI-Inner: yes",
    "X: a\nOCI-Inner: yes",
    "X: a\0OCI-Inner: yes",
    "X : a",
    " X: a",
    "X",
    ": a",
    "X\x80: a",
    `X: ${"a".repeat(20_000)}`,
    `${"X".repeat(70_000)}: a`,
    "__proto__: x",
    "constructor: x",
  );
  const others = fc.oneof(
    { weight: 3, arbitrary: fc.constant([]) },
    fc.array(other, { minLength: 1, maxLength: 3 }),
  );
  return fc
    .tuple(hosts, authorization, framing, others, fc.boolean())
    .map(([host, login, length, more, isLate]) =>
      isLate ? [...more, ...length, ...login, ...host] : [...host, ...login, ...more, ...length],
    );
}

function bodies({ token }: Vocabulary): fc.Arbitrary<string> {
  // A request for another's repository, as only the registry would understand it.
  const inner = [
    "GET /victim/v2/private/app/tags/list HTTP/1.1",
    "Host: x",
    "OCI-Inner: yes",
    `Authorization: Bearer ${token}`,
    "",
    "",
  ].join(crlf);
  const chunk = (text: string): string => `${text.length.toString(16)}${crlf}${text}${crlf}`;
  const content = fc.oneof(fc.constantFrom("hello", "{}", inner), fc.string({ maxLength: 100 }));
  return fc.oneof(
    { weight: 30, arbitrary: fc.constant("") },
    { weight: 4, arbitrary: content },
    { weight: 10, arbitrary: content.map((text) => `${chunk(text)}0${crlf}${crlf}`) },
    { weight: 2, arbitrary: fc.constant(`0${crlf}${crlf}${inner}`) },
    fc.constantFrom(
      `5\nhello\n0\n\n${inner}`,
      `5;x="\r\n"\r\nhello\r\n0\r\n\r\n${inner}`,
      `fffffffffffffff01\r\nhello\r\n0\r\n\r\n`,
      `0x5\r\nhello\r\n0\r\n\r\n`,
      `-5\r\nhello\r\n0\r\n\r\n`,
      `5\r\nhelloX0\r\n\r\n`,
      `0\r\nAuthorization: Bearer x\r\nOCI-Inner: yes\r\n\r\n`,
      `0\r\nOCI-Inner: yes\r\nContent-Length: 60\r\n\r\n${inner}`,
      `5\r\nhel`,
    ),
  );
}
