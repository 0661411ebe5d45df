/**
 * A registry, or what stands before it, that behaves in a way that nobody expects, as somebody has reported it. A row of the
 * table "Odd registries" of docs/conformance.md, and the name of the test that shows it.
 */
export interface OddRegistry {
  /** What the test calls it by: `oddRegistry("…")`. */
  readonly id: string;
  /** What the registry does, and who has met that. */
  readonly does: string;
  /** What comes of it where a client speaks to the registry itself, with a login of its own. */
  readonly directly: string;
  /** What comes of it through the proxy. */
  readonly throughProxy: string;
  /** The file of the test, below `test/`. */
  readonly test: string;
}

/** All of them, in the order of the table. A new one needs a test that is named by `oddRegistry(id)` in the file that it names. */
export const oddRegistries: readonly OddRegistry[] = [
  {
    id: "same-host-redirect",
    does: "redirects blobs to another port of its own host, by the same path below `/v2/`",
    directly: "clients follow",
    throughProxy:
      "followed, without the login; only a path that was not requested yet counts as a wrong port of the registry",
    test: "proxy/relay/odd-redirects.test.ts",
  },
  {
    id: "wrong-own-address",
    does: "redirects to another path below `/v2/` with a wrong scheme or port of its own (distribution#970, #2225)",
    directly: "the connection fails",
    throughProxy: "followed at the connector's address, with the login",
    test: "proxy/relay/odd-redirects.test.ts",
  },
  {
    id: "http-to-https",
    does: "redirects everything from http to https of the same host, at the default ports (go-containerregistry#1047)",
    directly: "crane follows, with the login; a push fails with some tools",
    throughProxy:
      "followed with the login, pushes too; the Connector's condition says to write `https://` in `spec.address`",
    test: "proxy/relay/odd-redirects.test.ts",
  },
  {
    id: "https-to-http",
    does: "redirects from https to http of its own host",
    directly: "Go's clients follow, and some send the login in clear text",
    throughProxy: "502 that says so; nothing is sent to http",
    test: "proxy/relay/odd-redirects.test.ts",
  },
  {
    id: "utf8-location",
    does: "writes other letters than ASCII's into a Location or a Link as they are, in UTF-8 or Latin-1",
    directly: "clients request the same bytes",
    throughProxy: "the same bytes, percent-encoded",
    test: "proxy/relay/odd-redirects.test.ts",
  },
  {
    id: "many-redirects",
    does: "redirects seven times before it answers, or without an end",
    directly: "Go's clients follow ten redirects",
    throughProxy: "ten are followed; the error says so",
    test: "proxy/relay/odd-redirects.test.ts",
  },
  {
    id: "redirect-to-registry",
    does: "redirects a whole repository to a registry that requires a login of its own (go-containerregistry#2333)",
    directly: "crane logs in there, anonymously; others fail",
    throughProxy: "502 that names the other registry, and the connector to use for it",
    test: "proxy/relay/odd-redirects.test.ts",
  },
  {
    id: "redirected-list",
    does: "redirects a list of tags to another registry, which has pages of its own (registry.k8s.io)",
    directly: "oras reads all pages, crane fails at the second",
    throughProxy: "all pages, by Links below the connector",
    test: "proxy/relay/odd-lists.test.ts",
  },
  {
    id: "redirect-loses-query",
    does: "loses the query in that redirect (registry.k8s.io#326)",
    directly: "`n` is ignored; only clients that follow the Link to the other registry get further",
    throughProxy: "the redirect gets the query of the request, so pages can be read",
    test: "proxy/relay/odd-lists.test.ts",
  },
  {
    id: "link-elsewhere",
    does: "names the next page of a list under another repository or host, or in a Link that has others beside it",
    directly: "clients follow where they can",
    throughProxy:
      "the page of the same list below the connector; links to other things are left out",
    test: "proxy/relay/odd-lists.test.ts",
  },
  {
    id: "lost-next-page",
    does: "names a next page that is no page of the same list, or no URL, or in an unreadable part of a Link",
    directly: "an error, or requests to an unknown host",
    throughProxy: "502; never a list that looks complete",
    test: "proxy/relay/odd-lists.test.ts",
  },
  {
    id: "referrers-by-tag",
    does: "has no API for referrers, but their fallback tag, behind a redirect; or pages of referrers",
    directly: "clients read the tag, and the pages",
    throughProxy: "the same",
    test: "proxy/relay/odd-lists.test.ts",
  },
  {
    id: "rate-limit-headers",
    does: "says in `RateLimit-*` headers how many pulls are left, also with HEAD and 429 (Docker Hub)",
    directly: "tools show them",
    throughProxy: "the same",
    test: "proxy/relay/odd-lists.test.ts",
  },
  {
    id: "wrong-content",
    does: "sends content that does not match the requested digest (damaged storage)",
    directly: "clients check, and fail",
    throughProxy:
      "502 up to 64 KiB; longer content ends early, before its last bytes. The audit log and the metrics have 502 for both",
    test: "proxy/relay/odd-content.test.ts",
  },
  {
    id: "many-ranges",
    does: "keeps blobs in a storage that answers 400, 413, 414, 416, 431 or 501 to a request for ranges, or for many of them (containers/image#2792)",
    directly: "podman asks for fewer ranges after a 400, others for the whole blob",
    throughProxy:
      "the status and `Content-Range`, with a body of the proxy's: a storage's own text can hold a signature",
    test: "proxy/relay/storage-refusal.test.ts",
  },
  {
    id: "cut-before-begin",
    does: "sends the head of a response and closes the connection",
    directly: "an error of the connection",
    throughProxy: "503 that says so, after some attempts",
    test: "proxy/relay/odd-content.test.ts",
  },
  {
    id: "immutable-head",
    does: "redirects HEAD of a manifest, does not know HEAD, or names no digest there (quay#1310), or two",
    directly: "–",
    throughProxy:
      "immutable tags work: redirects are followed, and GET is sent where HEAD does not say",
    test: "proxy/relay/odd-pushes.test.ts",
  },
  {
    id: "headers-twice",
    does: "sends a header that has one value twice, such as Docker-Content-Digest, since a proxy before it adds its own",
    directly: "Go's clients read the first one",
    throughProxy: "the client gets it once; two that differ are passed on",
    test: "proxy/relay/odd-pushes.test.ts",
  },
  {
    id: "early-refusal",
    does: "refuses a push before it has read it (401, 403, 409, 413, 429), and resets the connection",
    directly: "clients often lose the response",
    throughProxy: "the response is passed on if it arrived",
    test: "proxy/relay/odd-pushes.test.ts",
  },
  {
    id: "late-login",
    does: "requires a login, or another token, only after the content of a push was sent",
    directly: "clients send the content again, or fail",
    throughProxy: "503 with `Retry-After` that says so; the next attempt has the login",
    test: "proxy/relay/odd-pushes.test.ts",
  },
  {
    id: "moved-token-server",
    does: "moves its token server, or takes Basic, or nobody's login, in place of tokens, while no token is kept (gitea#31002)",
    directly: "a login for each command, so the next one passes",
    throughProxy:
      "`/v2/` is asked again where no token can be had, or none after 5 s, at most every 10 s, and the login goes to the new place if it may",
    test: "upstream/odd-logins.test.ts",
  },
  {
    id: "own-action",
    does: "requires an action of its own: `metadata_read` for a list of tags (Azure, argocd-image-updater#473), `*` for DELETE (acr#676)",
    directly: "clients ask for what the challenge says",
    throughProxy:
      "after a refusal, the actions of the challenge are asked for, for the same repository and this request alone",
    test: "upstream/own-actions.test.ts",
  },
  {
    id: "insufficient-403",
    does: "says `insufficient_scope` with 403 in place of 401 (RFC 6750, section 3.1)",
    directly: "some clients ask for more, others fail",
    throughProxy: "the same as with 401",
    test: "upstream/own-actions.test.ts",
  },
  {
    id: "service-per-repository",
    does: "has a service or a realm for each repository (Scarf, cupdate#99; gateways by path)",
    directly: "clients log in for each repository",
    throughProxy:
      "what a challenge says is kept for its repository, so pushes at the same time pass",
    test: "upstream/odd-logins.test.ts",
  },
  {
    id: "service-per-method",
    does: "has a service for each method (gateways by `limit_except`)",
    directly: "clients log in for each request that is refused",
    throughProxy:
      "what a challenge says is kept for such requests to the repository; content that was sent to a service that was not known yet is a 503, and the next attempt passes",
    test: "upstream/odd-logins.test.ts",
  },
  {
    id: "token-redirect",
    does: "answers for a token with a redirect within its origin, and gzip that was not asked for",
    directly: "crane follows, all read gzip",
    throughProxy:
      "followed three times within the origin of the realm; gzip, deflate and br are read",
    test: "upstream/odd-logins.test.ts",
  },
  {
    id: "large-token",
    does: "gives out tokens of more than 16 KiB",
    directly: "clients use them",
    throughProxy: "used and not kept; over 64 KiB refused",
    test: "upstream/odd-logins.test.ts",
  },
  {
    id: "utf8-service",
    does: "names its service in UTF-8",
    directly: "clients send it back as it came",
    throughProxy: "the same",
    test: "upstream/odd-logins.test.ts",
  },
  {
    id: "token68-challenge",
    does: "offers `Negotiate <token68>, Basic …` in one header",
    directly: "crane passes, others ask for a password",
    throughProxy: "the Basic challenge is found",
    test: "upstream/odd-logins.test.ts",
  },
  {
    id: "challenge-headers",
    does: "sends each of its challenges in a header of its own, the first of which can't be read",
    directly: "Go's clients read each by itself",
    throughProxy: "the same",
    test: "upstream/odd-logins.test.ts",
  },
  {
    id: "realm-elsewhere",
    does: "has its token server in another domain (lscr.io)",
    directly: "clients ask there, with their password",
    throughProxy:
      "anonymous tokens are fetched there where the connector has no credential; with one, `allowedRealmHosts` has to name the host. Scaleway's is known",
    test: "upstream/odd-logins.test.ts",
  },
  {
    id: "late-right",
    does: "answers 403 for a while to a token that is older than a right",
    directly: "the next command has a new token",
    throughProxy: "the token is fetched anew, at most once in 10 s",
    test: "upstream/odd-logins.test.ts",
  },
  {
    id: "open-ping",
    does: "answers `/v2/` to everybody, and 404, 403 or 401 without a challenge to the anonymous where a repository is private",
    directly: "crane sends its login at once",
    throughProxy:
      "the login is sent after such an answer; for ten minutes it goes to that repository at once if it helped; otherwise it is tried again after 10 s",
    test: "upstream/unasked-logins.test.ts",
  },
  {
    id: "no-user-agent",
    does: "stands behind a firewall that answers 403 to a request without User-Agent (harbor#23025)",
    directly: "pass, since every client has one",
    throughProxy:
      "the same: each request has `User-Agent: oci-connector/<version>`, and the client's behind it",
    test: "proxy/relay/user-agent.test.ts",
  },
  {
    id: "slow-first-byte",
    does: "takes minutes for the first byte, since it fetches from another registry first (zot#4184, harbor#18294), and gives up when its client goes",
    directly: "clients wait",
    throughProxy:
      "waited for as long as the client waits: 15 minutes, 60 s for `/v2/` and for a token; a request that nobody waits for is ended",
    test: "proxy/relay/odd-waits.test.ts",
  },
  {
    id: "chunked",
    does: "sends manifests and blobs in chunks (zot), without a length, or by HTTP/1.0",
    directly: "one request",
    throughProxy: "one request",
    test: "proxy/relay/odd-framing.test.ts",
  },
  {
    id: "equal-lengths",
    does: "sends its Content-Length twice",
    directly: "Go's clients take it for one",
    throughProxy:
      "the same; only in the response to the content of an upload it is a 502 that says so",
    test: "proxy/relay/odd-framing.test.ts",
  },
  {
    id: "ambiguous",
    does: "sends two lengths that differ, a length beside chunks, another transfer coding, or a folded line",
    directly: "clients differ in what they read",
    throughProxy: "502 that says what is wrong, after one request",
    test: "proxy/relay/odd-framing.test.ts",
  },
  {
    id: "partial-chain",
    does: "has a certificate of which the CA Secret holds the issuing authority alone, or the certificate itself (wud#296)",
    directly: "Go's clients connect with the same file",
    throughProxy: "the same; a stranger's authority and an expired certificate stay refused",
    test: "upstream/certificates.test.ts",
  },
  {
    id: "unsupported-tls",
    does: "has an RSA key of 1,024 bits, or speaks TLS 1.1 or HTTP/2 alone",
    directly: "Go's clients refuse TLS 1.1, and connect otherwise",
    throughProxy: "503 and the reason CertificateInvalid, with a sentence for each",
    test: "upstream/certificates.test.ts",
  },
  {
    id: "client-certificate",
    does: "requires a client certificate (oras#491, moby#21148)",
    directly: "tools that can be given one connect",
    throughProxy: "with `clientCertSecret` in `spec.params`; without it, a sentence that says so",
    test: "upstream/client-certificate.test.ts",
  },
];

/**
 * The title of a test of the table.
 * @throws where the table has no such row
 */
export function oddRegistry(id: string): string {
  const row = oddRegistries.find((other) => other.id === id);
  if (row === undefined) throw new Error(`the table of odd registries has no "${id}"`);
  return `${row.does}: ${row.throughProxy}`;
}
