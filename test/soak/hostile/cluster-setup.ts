import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { createServer as createTlsServer } from "node:tls";
import { fileURLToPath } from "node:url";
import { exportJWK, generateKeyPair, SignJWT } from "jose";
import { createAuthority, createLeafIssuer } from "../../../src/certificate-authority.ts";
import { property } from "../../../src/connector/document.ts";
import { readConditions } from "../../../src/controller/conditions.ts";
import { serviceName } from "../../../src/controller/connector-service.ts";
import { createNode, endNode, firstProcess } from "../../cluster/namespaces.ts";
import { runCommand } from "../../cluster/run-command.ts";
import {
  type FakeAnswer,
  type FakeApiServer,
  type FakeRequest,
  startFakeApiServer,
} from "../../kube/fake-api-server.ts";
import { type Cleanup, cleanup } from "../../support/cleanup.ts";
import { eventually } from "../../support/eventually.ts";
import { plainRequest } from "../../support/plain-request.ts";
import { type RunningProgram, startProgram } from "../../support/program.ts";
import { makeTempFolder } from "../../support/temp-folder.ts";
import { imageSettings } from "../image-settings.ts";
import {
  type Attacked,
  basePath,
  createAttacked,
  liveMemoryArgument,
  type Setup,
} from "./setup.ts";

/** Where registries listen: as seen from the Pod, another machine. */
export const clusterAddress = "10.250.1.1";
const podAddress = "10.250.1.2";
const apiAddress = "10.250.1.3";
const nodeAddress = "10.250.1.4";
const installNamespace = "connectors-system";
/** How long a program, or a Connector, may take on a machine that is busy. */
const patienceMs = 60_000;

const main = fileURLToPath(new URL("../../../src/main.ts", import.meta.url));

/**
 * The cluster's roles as processes in a Pod of their own, that is, in namespaces of network and mounts, before an API
 * server that is not a real one. This process must be in a network namespace that nobody else uses.
 * @param registry of the neighbour
 */
export async function startClusterSetup(registry: string): Promise<Setup> {
  const resources = cleanup();
  try {
    return await start(registry, resources);
  } catch (error) {
    await resources.stop();
    throw error;
  }
}

async function start(registry: string, resources: Cleanup): Promise<Setup> {
  const api = resources.add(await startFakeApiServer());
  const issuer = await createTokenIssuer();
  const tokens = {
    attacker: await issuer.issue("team-a"),
    neighbour: await issuer.issue("team-b"),
  };
  let keys: FakeAnswer | undefined;
  let hasReadKeys = false;
  api.intercept = (request) => {
    if (request.path !== "/openid/v1/jwks") return review(request, Object.values(tokens));
    hasReadKeys = keys !== undefined;
    return keys ?? { status: 403, body: { message: "nobody may read them" } };
  };
  const forgetting = setInterval(() => {
    (api.requests as FakeRequest[]).splice(0);
    api.compact(); // as etcd does from time to time
  }, 5_000);
  resources.defer(() => clearInterval(forgetting));
  const enter = await startPod(resources);
  const { ca, port } = await serveTls(api, resources);
  await giveServiceAccount(enter, ca, resources);
  api.put("endpointslices", {
    metadata: { name: "kubernetes", namespace: "default" },
    endpoints: [{ addresses: [apiAddress] }],
    ports: [{ port }],
  });
  const lead: Setup["lead"] = async (address, params = []) =>
    putConnector(api, "team-a", "evil", address, params);
  await lead(registry, []);
  putConnector(api, "team-b", "quiet", registry);

  const startRole = async (role: string, healthPort: number): Promise<RunningProgram> => {
    const program = resources.add(await startInPod(enter, role, port));
    await eventually(
      async () => {
        if (program.status() !== undefined) throw new Error(`${role} has ended`);
        const ready = plainRequest(`http://${podAddress}:${healthPort}/readyz`);
        return (await ready.catch(() => undefined))?.status === 200;
      },
      () => `${role} is not ready`,
      patienceMs,
    );
    return program;
  };
  const roles = [
    { role: "controller", healthPort: 9810, limitMebibytes: 256 },
    { role: "proxy", healthPort: 9809, limitMebibytes: 512 },
  ];
  const running: { program: RunningProgram; attacked: Attacked }[] = [];
  const restartRoles = async (): Promise<ReadonlyMap<string, number>> => {
    await Promise.all(running.splice(0).map(({ program }) => program.stop()));
    const durationsMs = new Map<string, number>();
    for (const { role, healthPort, limitMebibytes } of roles) {
      const begin = performance.now();
      const program = await startRole(role, healthPort);
      durationsMs.set(role, performance.now() - begin);
      running.push({ program, attacked: createAttacked(role, limitMebibytes, program) });
    }
    return durationsMs;
  };
  await restartRoles();
  const host = `${podAddress}:8080`;
  let made = 0;
  return {
    get attacked() {
      return running.map(({ attacked }) => attacked);
    },
    neighbour: { host, token: tokens.neighbour, base: basePath("team-b", "quiet") },
    attacker: {
      host,
      token: tokens.attacker,
      base: basePath("team-a", "evil"),
      api: api.access.server.origin,
    },
    lead,
    async clear() {
      for (const prefix of ["large", "silent"]) {
        for (let number = 0; number < 200; number += 1) {
          const name = `${prefix}-${number}`;
          if (api.get("connectors", name, "team-a")) api.remove("connectors", name, "team-a");
        }
      }
    },
    async publishKeys() {
      keys = { status: 200, body: issuer.keys };
      const unknown = issuer.unknownToken;
      await eventually(
        async () => {
          const headers = { authorization: `Bearer ${unknown}` };
          await plainRequest(`http://${host}/v2/`, { headers });
          return hasReadKeys;
        },
        () => "the proxy has not read the API server's keys",
        patienceMs,
      );
    },
    restartRoles,
    async makeConnector() {
      made += 1;
      const name = `new-${made}`;
      putConnector(api, "team-b", name, registry);
      await eventually(
        () =>
          api.get("services", serviceName(name), "team-b") !== undefined &&
          readConditions(api.get("connectors", name, "team-b")).some(
            ({ type, status }) => type === "Ready" && status === "True",
          ),
        () => `the neighbour's new Connector is not ready`,
        patienceMs,
      );
      api.remove("connectors", name, "team-b");
    },
    stop: resources.stop,
  };
}

function putConnector(
  api: FakeApiServer,
  namespace: string,
  name: string,
  address: string,
  params: readonly object[] = [],
): void {
  api.put("connectors", {
    apiVersion: "connectors.alauda.io/v1alpha1",
    kind: "Connector",
    metadata: { name, namespace },
    spec: { connectorClassName: "oci", address, params },
  });
}

/** Issues tokens as an API server does. */
interface TokenIssuer {
  /** The keys that it publishes. */
  readonly keys: object;
  /** A token that is not one of its own. */
  readonly unknownToken: string;
  /** The token of a namespace's ServiceAccount, for a day. */
  issue(namespace: string): Promise<string>;
}

async function createTokenIssuer(): Promise<TokenIssuer> {
  const alg = "RS256";
  const kid = "key-1"; // which those of attackers name, too
  const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true });
  const sign = (namespace: string, header: { readonly kid: string }): Promise<string> =>
    new SignJWT()
      .setProtectedHeader({ alg, ...header })
      .setAudience("connectors-proxy")
      .setSubject(userOf(namespace))
      .setExpirationTime("1 day")
      .sign(privateKey);
  return {
    keys: { keys: [{ ...(await exportJWK(publicKey)), alg, kid, use: "sig" }] },
    unknownToken: await sign("team-c", { kid: "key-0" }),
    issue: (namespace) => sign(namespace, { kid }),
  };
}

const userOf = (namespace: string): string => `system:serviceaccount:${namespace}:builder`;

/** The API server's part where tokens and rights are reviewed: each tenant may use what is in its own namespace. */
function review({ path, body }: FakeRequest, tokens: readonly string[]): FakeAnswer | undefined {
  const spec = property(body, "spec");
  if (path.endsWith("/tokenreviews")) {
    const token = String(property(spec, "token"));
    return { status: 201, body: { status: statusOfToken(token, tokens) } };
  }
  if (path.endsWith("/subjectaccessreviews")) {
    const namespace = String(property(property(spec, "resourceAttributes"), "namespace"));
    const allowed = property(spec, "user") === userOf(namespace);
    return { status: 201, body: { status: { allowed } } };
  }
  return undefined;
}

function statusOfToken(token: string, tokens: readonly string[]): object {
  if (!tokens.includes(token)) return { authenticated: false, error: "invalid signature" };
  const claims: unknown = JSON.parse(
    Buffer.from(token.split(".")[1] ?? "", "base64url").toString("utf8"),
  );
  const username = String(property(claims, "sub"));
  const extra = {
    "authentication.kubernetes.io/pod-name": ["build"],
    "authentication.kubernetes.io/pod-uid": [`uid of ${username}`],
  };
  return {
    authenticated: true,
    audiences: ["connectors-proxy"],
    user: { username, groups: ["system:serviceaccounts"], extra },
  };
}

/** Makes the Pod's namespaces and their link to ours. @returns what to put before a command in the Pod */
async function startPod(resources: Cleanup): Promise<readonly string[]> {
  const { path } = resources.add(makeTempFolder("pod"));
  const pod = await createNode("pod", path, true);
  resources.defer(() => endNode(pod));
  const target = await firstProcess(pod);
  // Its processes keep the numbers that they have for us.
  const enter = ["nsenter", "--target", `${target}`, "--net", "--mount"];
  const ip = (command: string): Promise<string> => runCommand(["ip", ...command.split(" ")]);
  const ipInPod = (command: string): Promise<string> =>
    runCommand([...enter, "ip", ...command.split(" ")]);
  await ip(`link add to-pod type veth peer name eth0 netns ${target}`);
  await ip(`addr add ${clusterAddress}/24 dev to-pod`);
  await ip(`addr add ${apiAddress}/24 dev to-pod`);
  await ip("link set to-pod up");
  await ipInPod(`addr add ${podAddress}/24 dev eth0`);
  await ipInPod("link set eth0 up");
  return enter;
}

/** Puts TLS before the API server, as a Pod wants it. */
async function serveTls(
  api: FakeApiServer,
  resources: Cleanup,
): Promise<{ readonly ca: string; readonly port: number }> {
  const now = new Date();
  const authority = await createAuthority("API server", now);
  const leaf = await (await createLeafIssuer(authority))(apiAddress, now);
  const server = createTlsServer({ key: leaf.privateKey, cert: leaf.certificate }, (socket) => {
    const inner = connect(Number(api.access.server.port), api.access.server.hostname);
    inner.on("error", () => socket.destroy()).on("close", () => socket.destroy());
    socket.on("error", () => inner.destroy()).on("close", () => inner.destroy());
    socket.pipe(inner).pipe(socket);
  });
  server.listen(0, apiAddress);
  await once(server, "listening");
  resources.defer(() => server.close());
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("TLS does not listen");
  return { ca: authority.certificate, port: address.port };
}

/** The files that the kubelet mounts into a Pod. */
async function giveServiceAccount(
  enter: readonly string[],
  ca: string,
  resources: Cleanup,
): Promise<void> {
  const { path } = resources.add(makeTempFolder("service-account"));
  await writeFile(join(path, "ca.crt"), ca);
  await writeFile(join(path, "token"), "our-own-token");
  const folder = "/run/secrets/kubernetes.io/serviceaccount";
  const script = `mount -t tmpfs tmpfs /run; mkdir -p ${folder}; cp "$0"/* ${folder}`;
  await runCommand([...enter, "sh", "-euc", script, path]);
}

async function startInPod(
  enter: readonly string[],
  role: string,
  apiPort: number,
): Promise<RunningProgram> {
  const { nodeArgs, env } = imageSettings();
  // Half an hour of log is more than this process can keep.
  const quiet = ["sh", "-c", 'exec "$@" 2>/dev/null', "sh"];
  const [command = "", ...args] = [
    ...enter,
    ...quiet,
    process.execPath,
    ...nodeArgs,
    liveMemoryArgument,
    main,
    role,
  ];
  return startProgram(command, args, {
    env: {
      ...env,
      POD_NAMESPACE: installNamespace,
      POD_NAME: role,
      NODE_IPS: nodeAddress,
      AUDIENCE: "connectors-proxy",
      CLUSTER_DOMAIN: "cluster.local",
      KUBERNETES_SERVICE_HOST: apiAddress,
      KUBERNETES_SERVICE_PORT: String(apiPort),
    },
  });
}
