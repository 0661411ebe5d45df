import { mkdir, mkdtemp, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { stringify } from "yaml";
import { publishVolume } from "../test/support/csi-calls.ts";
import { eventually } from "../test/support/eventually.ts";
import { type RunningProgram, startProgram } from "../test/support/program.ts";
import { runSettings } from "../tools/image/containerfile.ts";
import type { Certificates } from "./certificates.ts";
import type { Registry } from "./registries.ts";

/** The connector as a user of one machine runs it, with a connector for each registry. */
export interface ConnectorProcess {
  readonly program: RunningProgram;
  /** `http://127.0.0.1:34567` */
  readonly http: string;
  readonly https: string;
  readonly socket: string;
  /** Where volumes can be mounted. */
  readonly volumes: string;
}

export const namespace = "bench";

const root = fileURLToPath(new URL("..", import.meta.url));
/** Measured is what the image runs: compiled, with its settings. */
const image = runSettings(root);

export async function startConnector(
  registries: Readonly<Record<string, Registry>>,
  { authority }: Certificates,
  args: readonly string[] = [],
): Promise<ConnectorProcess> {
  const folder = await mkdtemp(join(tmpdir(), "connector-"));
  const [connectors, state, volumes] = ["connectors", "state", "volumes"].map((name) =>
    join(folder, name),
  ) as [string, string, string];
  await mkdir(connectors);
  await mkdir(volumes);
  const documents = Object.entries(registries).flatMap(([name, registry]) =>
    documentsOf(name, registry, authority),
  );
  const text = documents.map((document) => stringify(document)).join("---\n");
  await writeFile(join(connectors, "bench.yaml"), text, { mode: 0o600 });
  const [, ...flags] = image.entrypoint.slice(0, -1);
  const main = join(root, "dist/main.js");
  // The log goes to a file: through a pipe, its reader would be part of what is measured.
  const logFile = join(folder, "log");
  await writeFile(logFile, "");
  const program = await startProgram("sh", [
    "-c",
    'exec "$@" 2> "$0"',
    logFile,
    "env",
    ...image.env,
    process.execPath,
    ...flags,
    main,
    "standalone",
    "--connectors",
    connectors,
    "--state",
    state,
    ...["--listen", "http://127.0.0.1:0", "--listen", "https://127.0.0.1:0", ...args],
  ]);
  const [, http = "", https = ""] = await readyLine(logFile);
  return { program, http, https, socket: join(state, "csi.sock"), volumes };
}

async function readyLine(logFile: string): Promise<RegExpExecArray> {
  let log = "";
  const look = async (): Promise<RegExpExecArray | undefined> => {
    log = await readFile(logFile, "utf8");
    return /"ready","address":"(http:\S+) (https:[^\s"]+)"/.exec(log) ?? undefined;
  };
  return eventually(look, () => `the connector is not ready: ${log}`, 30_000);
}

function documentsOf(name: string, { address, login }: Registry, ca: string): readonly object[] {
  const secret = (kind: string, content: object): object => ({
    apiVersion: "v1",
    kind: "Secret",
    metadata: { name: `${name}-${kind}`, namespace },
    ...content,
  });
  return [
    {
      apiVersion: "connectors.alauda.io/v1alpha1",
      kind: "Connector",
      metadata: { name, namespace },
      spec: {
        connectorClassName: "oci",
        address,
        auth: { name: "tokenAuth", secretRef: { name: `${name}-login` } },
        caCertSecretRef: { name: `${name}-ca` },
      },
    },
    secret("login", {
      type: "cpaas.io/distribution-registry-token",
      stringData: { username: login.username, password: login.password },
    }),
    secret("ca", { type: "Opaque", stringData: { "ca.crt": ca } }),
  ];
}

/** Publishes a volume for these connectors through the CSI socket. @returns where its files are */
export async function mountVolume(
  { socket, volumes }: ConnectorProcess,
  volumeId: string,
  connectors: readonly string[],
): Promise<string> {
  const targetPath = join(volumes, volumeId);
  await publishVolume(socket, {
    volumeId,
    targetPath,
    namespace,
    attributes: {
      connectors: connectors.join(","),
      "configuration.names": "docker-config,buildkitd",
    },
  });
  return targetPath;
}

/** The Authorization header that a tool makes of a volume. */
export async function volumeAuthorization(volume: string): Promise<string> {
  const token = await readFile(join(volume, "context.token"), "utf8");
  return `Basic ${Buffer.from(`volume:${token.trim()}`).toString("base64")}`;
}
