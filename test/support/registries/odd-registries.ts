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
    does: "names a next page that is no page of the same list, or no URL",
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
    id: "cut-before-begin",
    does: "sends the head of a response and closes the connection",
    directly: "an error of the connection",
    throughProxy: "503 that says so, after some attempts",
    test: "proxy/relay/odd-content.test.ts",
  },
  {
    id: "immutable-head",
    does: "redirects HEAD of a manifest, does not know HEAD, or names no digest there (quay#1310)",
    directly: "–",
    throughProxy:
      "immutable tags work: redirects are followed, and GET is sent where HEAD does not say",
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
