import { createSecureContext } from "node:tls";
import { expect } from "chai";
import { parseEgressRules } from "../../src/connector/egress-rules.ts";
import { createEgress, type Egress } from "../../src/upstream/egress.ts";
import type { Cleanup } from "../support/cleanup.ts";
import { type EgressTestProxy, startEgressProxy } from "../support/egress-proxy.ts";
import {
  type FakeRegistry,
  type FakeRegistryOptions,
  startFakeRegistry,
} from "../support/fake-registry.ts";
import type { PlainRequestOptions } from "../support/plain-request.ts";
import { clientOf, type TestClient } from "./test-client.ts";
import { startTestProxy, type TestProxy, type TestProxyOptions } from "./test-proxy.ts";

const credential = { username: "alice", password: "secret-of-alice" };
export const companyLogin = "build:company-secret-word";

/** The settings of a company's proxy; what they leave out is that of the network. */
export interface EgressTestSettings {
  readonly proxy?: string;
  readonly noProxy?: string;
  readonly resolves?: boolean;
  /** What is trusted where the company's proxy speaks TLS itself. */
  readonly ca?: string;
}

/** A network whose names lead nowhere but by the company's proxy: DNS has a public address for each. */
export interface CompanyNetwork {
  readonly company: EgressTestProxy;
  /** `user:password`, as the Secret or the file has it. */
  login: string | undefined;
  /** The time, for refused logins. */
  clockMs: number;
  /** What DNS says, by name; undefined for a name that it does not know. The others are at a public address. */
  readonly addresses: Map<string, string | undefined>;
  startProxy(settings?: EgressTestSettings, options?: TestProxyOptions): Promise<TestProxy>;
  /** A registry on loopback, called `registry.example.com` unless told. */
  startRegistry(options?: FakeRegistryOptions): Promise<FakeRegistry>;
  /** Has the company's proxy require its login, which is the right one. */
  requireLogin(): void;
  /** The requests that have come to the company's proxy: `CONNECT registry.example.com:443`. */
  seen(): string[];
}

/** Starts a company's proxy. Resources that are started in the network are added to those of the test. */
export async function startCompanyNetwork(resources: Cleanup): Promise<CompanyNetwork> {
  const company = resources.add(await startEgressProxy());
  const lookup: TestProxyOptions["lookup"] = (hostname, _options, callback) => {
    const { addresses } = network;
    const address = addresses.has(hostname) ? addresses.get(hostname) : "93.184.216.34";
    if (address === undefined) {
      callback(Object.assign(new Error("not found"), { code: "ENOTFOUND" }), []);
    } else callback(null, [{ address, family: 4 }]);
  };
  const network: CompanyNetwork = {
    company,
    login: undefined,
    clockMs: 0,
    addresses: new Map(),
    startProxy: async (settings, options = {}) =>
      resources.add(
        await startTestProxy({ lookup, egress: await egressIn(network, settings), ...options }),
      ),
    startRegistry: async (options = {}) =>
      resources.add(
        await startFakeRegistry({
          hostname: "registry.example.com",
          address: "127.0.0.1",
          ...options,
        }),
      ),
    requireLogin() {
      company.login = companyLogin;
      network.login = companyLogin;
    },
    seen: () => company.requests.map(({ method, target }) => `${method} ${target}`),
  };
  return network;
}

function egressIn(
  network: CompanyNetwork,
  { proxy, noProxy = "", resolves = false, ca }: EgressTestSettings = {},
): Promise<Egress> {
  const texts = { proxy: proxy ?? `http://127.0.0.1:${network.company.port}`, noProxy };
  const rules = parseEgressRules(texts, resolves, { proxy: "p", noProxy: "n" });
  if (!rules.ok || rules.value === undefined) throw new Error("no rules");
  return createEgress({
    rules: rules.value,
    readLogin: async () => {
      const [username, password] = network.login?.split(":") ?? [];
      return username === undefined || password === undefined ? undefined : { username, password };
    },
    secureContext: () => createSecureContext(ca === undefined ? {} : { ca }),
    now: () => network.clockMs,
  });
}

/** Connects a registry as the connector `it`. */
export function connectRegistry(proxy: TestProxy, registry: FakeRegistry): TestClient {
  proxy.connect("it", registry.url, {
    ...(registry.auth.mode === "none" ? {} : { credential }),
    caCertificates: registry.ca === undefined ? [] : [registry.ca],
  });
  return clientOf(proxy, "it");
}

/** Both ways in which a request goes to a registry: by the read client, and by an agent of node:http. */
export const bothWays: readonly (readonly [string, string, PlainRequestOptions])[] = [
  ["GET", "app/tags/list", {}],
  ["POST", "app/blobs/uploads/?digest=sha256:0", { body: "blob" }],
];

/** All requests to the company's proxy have its login. */
export function expectCompanyLogin({ company }: CompanyNetwork): void {
  const header = `Basic ${Buffer.from(companyLogin).toString("base64")}`;
  expect(new Set(company.requests.map(({ login }) => login))).to.deep.equal(new Set([header]));
}

/** A host must not get the login at the company's proxy. */
export function expectNoLogin(registry: FakeRegistry): void {
  for (const { headers } of registry.requests) {
    expect(headers).to.not.have.property("proxy-authorization");
  }
}
