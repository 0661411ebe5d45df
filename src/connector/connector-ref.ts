import type { Checked } from "./problem.ts";
import { show } from "./problem.ts";

/** A reference to a connector. Both parts are DNS labels, so they are safe in paths, hosts and files. */
export interface ConnectorRef {
  readonly namespace: string;
  readonly name: string;
}

/** A label of RFC 1123, which Kubernetes requires for a namespace and for a part of a host name. */
const label = /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/;

/** A connector's Service is called `c-<name>`, and a Service name has 63 characters at most. */
const maxNameLength = 61;
const maxNamespaceLength = 63;

/** What a connector's name looks like, for messages. */
export const connectorNameRule: string = `a DNS label of at most ${maxNameLength} characters (a-z, 0-9, "-")`;
/** What a namespace looks like, for messages. */
export const namespaceRule: string = `a DNS label of at most ${maxNamespaceLength} characters (a-z, 0-9, "-")`;

/** Whether a text can be the name of a connector. */
export const isConnectorName = (text: string): boolean =>
  text.length <= maxNameLength && label.test(text);

/** Whether a text can be the name of a namespace. */
export const isNamespace = (text: string): boolean =>
  text.length <= maxNamespaceLength && label.test(text);

/** A reference as people write it: `namespace/name`. */
export const showRef = ({ namespace, name }: ConnectorRef): string => `${namespace}/${name}`;

/**
 * Parses `namespace/name` or `name`.
 * @param namespaceIfAbsent the namespace of a reference that names none
 * @param path of the text in its document, for problems
 */
export function parseConnectorRef(
  text: string,
  namespaceIfAbsent: string,
  path: string,
): Checked<ConnectorRef> {
  const slash = text.indexOf("/");
  const namespace = slash < 0 ? namespaceIfAbsent : text.slice(0, slash);
  const name = text.slice(slash + 1);
  if (isNamespace(namespace) && isConnectorName(name)) {
    return { ok: true, value: { namespace, name } };
  }
  const wanted = `<name> or <namespace>/<name>: the name ${connectorNameRule}, the namespace ${namespaceRule}`;
  return { ok: false, problems: [{ path, found: show(text), wanted }] };
}
