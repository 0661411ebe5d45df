import { startTestProxy, type TestProxy } from "../proxy/test-proxy.ts";
import { cleanup, type Stoppable } from "../support/cleanup.ts";
import { directPeer, type Peer, proxiedPeer } from "./peer.ts";
import { type Noted, openTalk } from "./talk.ts";
import type { UpstreamKind } from "./upstreams.ts";
import type { Workflow } from "./workflow.ts";

/** Two registries of one kind: one that is asked itself, and one behind the proxy. */
export interface Pair extends Stoppable {
  /** Sends a workflow's requests to either of them. */
  run(workflow: Workflow, repository: string): Promise<Compared>;
}

export interface Compared {
  /** Every field that is not the same: `status`, `body`, `header location`. */
  readonly fields: readonly string[];
  /** The same, for a person: what was asked, and what came from whom. */
  readonly description: string;
}

/** Each registry gets the same requests in the same order, so that their answers differ by nothing that the proxy did not do. */
export async function startPair(
  kind: UpstreamKind & { readonly start: NonNullable<UpstreamKind["start"]> },
): Promise<Pair> {
  const resources = cleanup();
  try {
    const itself = resources.add(await kind.start());
    const proxied = resources.add(await kind.start());
    const proxy = resources.add(await startTestProxy());
    const { login: credential, ca } = proxied;
    proxy.connect("registry", proxied.url, {
      ...(credential && { credential }),
      ...(ca !== undefined && { caCertificates: [ca] }),
    });
    proxy.connect("another", proxied.url);
    const direct = directPeer(itself.url, itself);
    const throughProxy = proxiedPeer({ ...askedBy(kind, proxy), registry: proxied.host });
    return {
      run: (workflow, repository) => compare(kind, workflow, repository, [direct, throughProxy]),
      stop: resources.stop,
    };
  } catch (error) {
    await resources.stop();
    throw error;
  }
}

function askedBy(
  { scheme, isShort }: UpstreamKind,
  proxy: TestProxy,
): Omit<Parameters<typeof proxiedPeer>[0], "registry"> {
  return {
    url: `${scheme}://${proxy[scheme]}`,
    ca: scheme === "https" ? proxy.surroundings.authority.certificate : undefined,
    connector: "registry",
    token: proxy.token(),
    host: isShort ? "c-registry.team-a.svc.cluster.local" : undefined,
  };
}

async function compare(
  { strictness }: UpstreamKind,
  { run }: Workflow,
  repository: string,
  [direct, proxied]: readonly [Peer, Peer],
): Promise<Compared> {
  // What the registry does itself has to make sense. The proxy has to do the same, whatever that is.
  const talks = [
    openTalk({ repository, peer: direct, strictness }),
    openTalk({ repository, peer: proxied, strictness: "any" }),
  ] as const;
  const outcomes = await Promise.allSettled(talks.map(({ talk }) => run(talk)));
  const [failure, proxiedFailure] = outcomes.map((outcome) =>
    outcome.status === "rejected" ? outcome.reason : undefined,
  );
  if (failure !== undefined) throw failure;
  const found = differences(talks[0].noted, talks[1].noted);
  if (found.length === 0 && proxiedFailure !== undefined) throw proxiedFailure;
  return {
    fields: [...new Set(found.map(({ field }) => field))].sort(),
    description: [
      ...found.map(
        ({ request, field, ...sides }) => `${request}: ${field}: ${JSON.stringify(sides)}`,
      ),
      ...(proxiedFailure === undefined ? [] : [String(proxiedFailure)]),
    ].join("\n"),
  };
}

interface Found {
  readonly request: string;
  readonly field: string;
  readonly direct: string;
  readonly proxied: string;
}

function differences(direct: readonly Noted[], proxied: readonly Noted[]): readonly Found[] {
  const found = direct.flatMap((one, index) => {
    const other = proxied[index];
    return other === undefined ? [] : differencesIn(one, other);
  });
  if (direct.length === proxied.length) return found;
  const sides = [direct, proxied].map((noted) => noted.map(({ request }) => request).join(", "));
  const [one = "", other = ""] = sides;
  return [...found, { request: "all", field: "requests", direct: one, proxied: other }];
}

function differencesIn(direct: Noted, proxied: Noted): readonly Found[] {
  const fields = [flat(direct), flat(proxied)] as const;
  const names = new Set(fields.flatMap((field) => Object.keys(field)));
  return [...names].flatMap((field) => {
    const [one = "none", other = "none"] = fields.map((side) => side[field]);
    if (one === other) return [];
    return [{ request: direct.request, field, direct: one, proxied: other }];
  });
}

const flat = ({ status, headers, body }: Noted): Readonly<Record<string, string>> => ({
  status: String(status),
  body,
  ...Object.fromEntries(Object.entries(headers).map(([name, value]) => [`header ${name}`, value])),
});
