/** Who pulls an image: the ServiceAccount of the Pod, whose token a container runtime sends. */
import type { IncomingMessage } from "node:http";
import { annotatedUser } from "../../connector/image-hosts.ts";
import {
  type Identity,
  serviceAccountNamespace,
  type VerifyToken,
} from "../../connector/platform.ts";
import { senderOf, unauthorized } from "../admission.ts";
import { denied } from "../registry-error.ts";
import { clientLogin } from "../request/request-head.ts";

/** Who pulls an image, and what their ServiceAccount says of the connector to use. */
export interface ImageLogin {
  readonly identity: Identity;
  /** The namespace of the ServiceAccount. */
  readonly namespace: string;
  /** The ServiceAccount's annotation `connectors.cpaas.io/connector`; undefined where it has none. */
  readonly annotation: string | undefined;
}

/**
 * Verifies the login of a container runtime. One for the registry itself may come in its place, since a kubelet tries the
 * Pod's pull Secrets first: it is refused as any other, so that the kubelet goes on with the next login, and nothing of
 * it gets into the error.
 * @throws RegistryError 401 with the challenge; 403 for the token of anybody but a ServiceAccount; Unavailable
 */
export async function verifyImageLogin(
  request: IncomingMessage,
  verifyToken: VerifyToken,
): Promise<ImageLogin> {
  const login = clientLogin(request.headers.authorization);
  if (login === undefined) {
    throw unauthorized("images of Pods are pulled with a token of the Pod's ServiceAccount", hint);
  }
  const verified = await verifyToken(login.token, senderOf(request));
  if (!verified.ok) throw unauthorized(verified.reason, hint);
  const identity = verified.value;
  const namespace = serviceAccountNamespace(identity.user);
  if (namespace === undefined) {
    throw denied(`images are pulled by ServiceAccounts, and ${identity.user} is none`);
  }
  // Whoever holds the token may name any connector here: it is used only where the ServiceAccount may use it.
  const isAnnotated = login.user.startsWith(annotatedUser);
  const annotation = isAnnotated ? login.user.slice(annotatedUser.length) : undefined;
  return { identity, namespace, annotation };
}

const hint = "the kubelet sends such a token where the node has our credential provider";
