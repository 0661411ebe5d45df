import {
  type ConnectorRef,
  isNamespace,
  namespaceRule,
  parseConnectorRef,
} from "../connector/connector-ref.ts";
import type { ServiceAccountRef } from "../connector/platform.ts";
import type { Checked } from "../connector/problem.ts";
import { dnsSubdomain, type Environment } from "./cluster-settings.ts";
import { type OutputFormat, problem, readCommandLine, readOutputFormat } from "./command-line.ts";

/** The settings of `doctor`. */
export interface DoctorSettings {
  /** The connector to check; undefined for the installation alone. */
  readonly connector: ConnectorRef | undefined;
  /** The ServiceAccount whose right to use the connector is checked. */
  readonly serviceAccount: ServiceAccountRef | undefined;
  /** The context of the kubeconfig; undefined for its current one. */
  readonly context: string | undefined;
  /** The namespace of the installation; undefined for the one in which it is found. */
  readonly installNamespace: string | undefined;
  readonly output: OutputFormat;
}

/** Reads the options of `doctor`. In a Pod of the installation the namespace is that of the Pod unless given. */
export function readDoctor(
  args: readonly string[],
  { POD_NAMESPACE }: Environment,
): Checked<{ readonly name: "doctor"; readonly settings: DoctorSettings }> {
  const line = readCommandLine(args, {
    "service-account": "",
    context: "",
    "install-namespace": POD_NAMESPACE ?? "",
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
  if (!isNamespaceOrNothing(installNamespace)) {
    problems.push(problem("--install-namespace", installNamespace, namespaceRule));
  }
  const output = readOutputFormat(line);
  if (!connector.ok || problems.length > 0) return { ok: false, problems };
  const context = text("context") || undefined;
  const ref = connector.value;
  const settings = {
    connector: ref,
    serviceAccount,
    context,
    installNamespace: installNamespace || undefined,
    output,
  };
  return { ok: true, value: { name: "doctor", settings } };
}

const isNamespaceOrNothing = (text: string): boolean => text === "" || isNamespace(text);

function connectorIn([text, ...others]: readonly string[]): Checked<ConnectorRef | undefined> {
  if (text === undefined) return { ok: true, value: undefined };
  if (others.length === 0) return parseConnectorRef(text, "default", "argument");
  return {
    ok: false,
    problems: [problem("argument", [text, ...others], "one connector at most")],
  };
}

function serviceAccountIn(text: string): ServiceAccountRef | undefined {
  const [namespace = "", name = "", ...others] = text.split("/");
  const isValid = isNamespace(namespace) && dnsSubdomain.test(name) && others.length === 0;
  return isValid ? { namespace, name } : undefined;
}
