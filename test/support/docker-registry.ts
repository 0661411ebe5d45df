import { randomBytes } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createAuthority, createLeafIssuer } from "../../src/certificate-authority.ts";
import { requirePrograms } from "../../tools/require-programs.ts";
import { cleanup, type Stoppable } from "./cleanup.ts";
import { runProgram, startProgram } from "./program.ts";
import { makeTempFolder } from "./temp-folder.ts";
import { startTestTokenServer, type TestTokenServer } from "./token-server.ts";

export interface DockerRegistryOptions {
  readonly auth: "none" | "htpasswd" | "token";
  readonly tls?: boolean;
  /** What the registry is called in its address and its certificate; it listens on 127.0.0.1. */
  readonly hostname?: string;
  /** Another program that reads the same configuration: the path of a `registry` of version 3. */
  readonly program?: string;
  /** Writes a line for each request to its log, as Apache does. */
  readonly accessLog?: boolean;
  /** Whether something can be deleted; it can, where nothing is said. */
  readonly deletes?: boolean;
  /** More of its configuration's `http` part, such as `{relativeurls: true}`. */
  readonly http?: Readonly<Record<string, unknown>>;
}

/** A real registry, Debian's docker-registry, that keeps what it is given until it is stopped. */
export interface DockerRegistry extends Stoppable {
  /** `localhost:34567` */
  readonly host: string;
  readonly port: number;
  /** `http://localhost:34567`, or https */
  readonly url: string;
  /** Its only user; the password is another one each time, so that a search for it finds no other. */
  readonly username: string;
  readonly password: string;
  /** With TLS: the certificate of its authority, PEM, and a folder with only that as `ca.crt` (for `--cert-dir`). */
  readonly tls: { readonly ca: string; readonly certDir: string } | undefined;
  /** With auth "token": its token server. */
  readonly tokens: TestTokenServer | undefined;
  /** Its log. */
  output(): string;
  stop(): Promise<void>;
}

/** Starts a registry on a free loopback port. It installs the program where that is missing, which takes its time. */
export async function startDockerRegistry(options: DockerRegistryOptions): Promise<DockerRegistry> {
  await requirePrograms(["docker-registry", "htpasswd"]);
  const resources = cleanup();
  try {
    return await start(options, resources);
  } catch (error) {
    await resources.stop();
    throw error;
  }
}

async function start(
  options: DockerRegistryOptions,
  resources: ReturnType<typeof cleanup>,
): Promise<DockerRegistry> {
  const folder = resources.add(makeTempFolder("registry")).path;
  const hostname = options.hostname ?? "localhost";
  const login = { username: "alice", password: `pw-${randomBytes(12).toString("hex")}` };
  const tokens =
    options.auth === "token"
      ? resources.add(await startTestTokenServer(new Map([[login.username, login.password]])))
      : undefined;
  const tls = options.tls ? await writeCertificates(folder, hostname) : undefined;
  const config = {
    version: "0.1",
    log: { level: "info", accesslog: { disabled: !options.accessLog } },
    storage: {
      filesystem: { rootdirectory: join(folder, "data") },
      delete: { enabled: options.deletes ?? true },
    },
    http: {
      addr: "127.0.0.1:0",
      secret: "registry",
      ...(tls && { tls: tls.files }),
      ...options.http,
    },
    ...(options.auth === "htpasswd" && { auth: await htpasswd(folder, login) }),
    ...(tokens && { auth: await tokenAuth(folder, tokens) }),
  };
  const configFile = join(folder, "config.yml");
  await writeFile(configFile, JSON.stringify(config));
  const command = options.program ?? "docker-registry";
  // Version 3 would send its traces to somebody.
  const env = { OTEL_TRACES_EXPORTER: "none" };
  const program = await startProgram(command, ["serve", configFile], { env });
  resources.add(program);
  // It names the port that the kernel has chosen once it listens.
  const [, port] = await program.waitFor(/listening on 127\.0\.0\.1:(\d+)/);
  const host = `${hostname}:${port}`;
  return {
    ...login,
    host,
    port: Number(port),
    url: `${tls ? "https" : "http"}://${host}`,
    tls,
    tokens,
    output: program.output,
    stop: resources.stop,
  };
}

interface Login {
  readonly username: string;
  readonly password: string;
}

async function htpasswd(folder: string, { username, password }: Login): Promise<object> {
  const { status, stdout, stderr } = await runProgram("htpasswd", ["-niB", username], {
    input: password,
  });
  if (status !== 0) throw new Error(`htpasswd: ${stderr}`);
  const path = join(folder, "htpasswd");
  await writeFile(path, stdout);
  return { htpasswd: { realm: "test", path } };
}

async function tokenAuth(folder: string, tokens: TestTokenServer): Promise<object> {
  const rootcertbundle = join(folder, "token-certificate.pem");
  await writeFile(rootcertbundle, tokens.certificate);
  const { realm, service, issuer } = tokens;
  return { token: { realm, service, issuer, rootcertbundle } };
}

async function writeCertificates(
  folder: string,
  hostname: string,
): Promise<{ ca: string; certDir: string; files: { certificate: string; key: string } }> {
  const now = new Date();
  const authority = await createAuthority("test registry", now);
  const leaf = await (await createLeafIssuer(authority))(hostname, now);
  const files = { certificate: join(folder, "tls.crt"), key: join(folder, "tls.key") };
  const certDir = join(folder, "certs.d");
  await mkdir(certDir);
  await writeFile(join(certDir, "ca.crt"), authority.certificate);
  await writeFile(files.certificate, leaf.certificate);
  await writeFile(files.key, leaf.privateKey);
  return { ca: authority.certificate, certDir, files };
}
