import {
  type ConnectorRef,
  isNamespace,
  namespaceRule,
  parseConnectorRef,
} from "../connector/connector-ref.ts";
import type { ServiceAccountRef } from "../connector/platform.ts";
import type { Checked } from "../connector/problem.ts";
import { dnsSubdomain, type Environment } from "./cluster-settings.ts";
import { problem, readCommandLine } from "./command-line.ts";

/** What is to be looked at, and by whom. */
export interface DoctorSettings {
  readonly connector: ConnectorRef | undefined;
  /** Whose rights on the connector. */
  readonly serviceAccount: ServiceAccountRef | undefined;
  /** Of the kubeconfig; undefined for its current one. */
  readonly context: string | undefined;
  readonly installNamespace: string;
  readonly output: "text" | "json";
}

/** The options of `doctor`. In a Pod of the installation its namespace is known. */
export function readDoctor(
  args: readonly string[],
  { POD_NAMESPACE }: Environment,
): Checked<{ readonly name: "doctor"; readonly settings: DoctorSettings }> {
  const line = readCommandLine(args, {
    "service-account": "",
    context: "",
    "install-namespace": POD_NAMESPACE ?? "connectors-system",
    output: "text",
  });
  const { text, problems, positionals } = line;
  const connector = connectorIn(positionals);
  if (!connector.ok) problems.push(...connector.problems);
  const account = text("service-account");
  const serviceAccount = serviceAccountIn(account);
  if (account !== "" && serviceAccount === undefined) {
    problems.push(problem("--service-account", account, "<namespace>/<name>"));
  }
  if (serviceAccount !== undefined && positionals.length === 0) {
    const wanted = "also the connector whose use is checked: <namespace>/<name>";
    problems.push(problem("argument", undefined, wanted));
  }
  const installNamespace = text("install-namespace");
  if (!isNamespace(installNamespace)) {
    problems.push(problem("--install-namespace", installNamespace, namespaceRule));
  }
  const output = outputs.find((format) => format === text("output"));
  if (output === undefined) {
    problems.push(problem("--output", text("output"), outputs.join(" or ")));
  }
  if (!connector.ok || output === undefined || problems.length > 0) return { ok: false, problems };
  const context = text("context") || undefined;
  const ref = connector.value;
  const settings = { connector: ref, serviceAccount, context, installNamespace, output };
  return { ok: true, value: { name: "doctor", settings } };
}

const outputs = ["text", "json"] as const;

function connectorIn([text, ...others]: readonly string[]): Checked<ConnectorRef | undefined> {
  if (text === undefined) return { ok: true, value: undefined };
  if (others.length === 0) return parseConnectorRef(text, "default", "argument");
  return { ok: false, problems: [problem("argument", [text, ...others], "one connector at most")] };
}

function serviceAccountIn(text: string): ServiceAccountRef | undefined {
  const [namespace = "", name = "", ...others] = text.split("/");
  const isRight = isNamespace(namespace) && dnsSubdomain.test(name) && others.length === 0;
  return isRight ? { namespace, name } : undefined;
}
