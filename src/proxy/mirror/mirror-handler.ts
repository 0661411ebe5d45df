/** The mirror for container runtimes: they pull the images of Pods by the registry's own names, with the Pod's token. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { TLSSocket } from "node:tls";
import type { Connector } from "../../connector/connector.ts";
import { showRef } from "../../connector/connector-ref.ts";
import { type ImageHosts, isImageHost, sharedNamespace } from "../../connector/image-hosts.ts";
import type { ConnectorPlace, ConnectorsAt, VerifyToken } from "../../connector/platform.ts";
import { parseRegistryAddress, type RegistryAddress } from "../../connector/registry-address.ts";
import { authorize } from "../admission.ts";
import {
  type HandleMirrorRequest,
  type HandlerOptions,
  handleRegistryRequest,
} from "../handler.ts";
import { asRegistryError, denied, RegistryError, reasonPhrase } from "../registry-error.ts";
import { mirrorParameter, parameters } from "../request/query.ts";
import { checkHead } from "../request/request-head.ts";
import type { RepositoryTarget } from "../request/request-target.ts";
import type { ReportDraft } from "../request-report.ts";
import { noteIdentity } from "../server/connection-limits.ts";
import { chooseConnector, repositoryBelow, type WantedImage } from "./connector-choice.ts";
import { type ImageLogin, verifyImageLogin } from "./image-login.ts";

/** What the mirror asks of its surroundings, and what the operator allows. */
export interface MirrorSurroundings {
  /** Verifies tokens of the images' audience, and no others. */
  readonly verifyImageToken: VerifyToken;
  readonly connectorsAt: ConnectorsAt;
  /** The registries whose images are pulled through the mirror. */
  readonly imageHosts: ImageHosts;
  /** What becomes of an image for which there is no connector: a refusal, or a pull without any credential. */
  readonly withoutConnector: "refuse" | "anonymous";
}

export interface MirrorOptions extends HandlerOptions, MirrorSurroundings {
  /**
   * For pulls without a connector, whose connections and tokens take no room of those of connectors; undefined where such
   * pulls are refused.
   */
  readonly anonymous: HandlerOptions | undefined;
}

/**
 * Creates the handler of mirror requests. An error's message stands in the status line, too, since a container runtime
 * shows a person no more of a response than that.
 */
export const createMirrorHandler =
  (options: MirrorOptions): HandleMirrorRequest =>
  async (request, response, report, target) => {
    try {
      await handle(request, response, report, target, options);
    } catch (error) {
      const known = asRegistryError(error);
      if (known !== undefined) response.statusMessage = reasonPhrase(known.message);
      throw error;
    }
  };

async function handle(
  request: IncomingMessage,
  response: ServerResponse,
  report: ReportDraft,
  target: RepositoryTarget,
  options: MirrorOptions,
): Promise<void> {
  checkHead(request);
  const registry = registryOf(target);
  const image = { registry, repository: target.repository };
  report.image = imageName(registry, target);
  // All this is refused before the challenge, for which a runtime may send a login that is not for this proxy.
  checkIsEncrypted(request);
  checkIsPull(request, target);
  if (!isImageHost(options.imageHosts, registry.imageHost)) throw notListed(registry);
  const login = await verifyImageLogin(request, options.verifyImageToken);
  const { identity } = login;
  report.identity = identity;
  noteIdentity(request.socket, identity);
  options.limits.admit(identity, response);
  const choice = await chooseConnector(image, login, options);
  if (choice.place === undefined) {
    const pull = { target, image, login, remark: choice.remark };
    await pullWithoutConnector(request, response, report, pull, options);
    return;
  }
  const { place } = choice;
  const registryRequest = {
    target: targetBelow(place.basePath, target),
    identity,
    async findConnector() {
      report.ref = place.ref;
      return stillAt(registry, place, await authorize(place.ref, "pull", identity, options));
    },
  };
  await handleRegistryRequest(request, response, report, registryRequest, options);
}

/**
 * The registry that a request names.
 * @throws RegistryError 400 where it names none, or several
 */
function registryOf({ query }: RepositoryTarget): RegistryAddress {
  const [host = "", ...others] = parameters(query, mirrorParameter);
  const address = parseRegistryAddress(`https://${host}`, mirrorParameter);
  if (address.ok && others.length === 0 && !host.includes("/")) return address.value;
  throw new RegistryError(
    400,
    "UNSUPPORTED",
    `the parameter ${mirrorParameter} is not the host of one registry, with its port at most`,
  );
}

/** `harbor.example.com/app/web:1`, `…@sha256:…`, or without either for a blob. */
function imageName(
  { imageHost }: RegistryAddress,
  { repository, endpoint }: RepositoryTarget,
): string {
  const name = repository === "" ? imageHost : `${imageHost}/${repository}`;
  if (endpoint.kind !== "manifest") return name;
  const { reference } = endpoint;
  return `${name}${reference.includes(":") ? "@" : ":"}${reference}`;
}

/** @throws RegistryError 403 for plain HTTP */
function checkIsEncrypted({ socket }: IncomingMessage): void {
  if (socket instanceof TLSSocket) return;
  throw denied("images of Pods are pulled by https, since requests carry a token", {
    detail: "name the proxy by https:// in hosts.toml",
  });
}

/** @throws RegistryError 405 for all but the content of images */
function checkIsPull({ method = "" }: IncomingMessage, { endpoint }: RepositoryTarget): void {
  const isContent = endpoint.kind === "manifest" || endpoint.kind === "blob";
  if (isContent && ["GET", "HEAD"].includes(method)) return;
  throw new RegistryError(
    405,
    "UNSUPPORTED",
    "a mirror serves pulls of manifests and blobs alone",
    {
      detail: "push, and list tags, through a connectors volume",
      headers: { allow: isContent ? "GET, HEAD" : "" },
    },
  );
}

const notListed = ({ imageHost }: RegistryAddress): RegistryError =>
  denied(`images of ${imageHost} are not pulled through this proxy`, {
    detail: "NODE_IMAGE_HOSTS, a setting of the operator, lists the registries whose images are",
  });

/** A target as a connector has it: its base path belongs to the address, and is not a part of the repository. */
const targetBelow = (basePath: string, target: RepositoryTarget): RepositoryTarget => ({
  ...target,
  prefix: `${target.prefix}${basePath === "" ? "" : `${basePath.slice(1)}/`}`,
  repository: repositoryBelow(basePath, target.repository) ?? "",
});

/** @throws RegistryError 403 where the connector was changed since it was chosen, and is elsewhere now */
function stillAt(
  { origin }: RegistryAddress,
  { ref, basePath }: ConnectorPlace,
  connector: Connector,
): Connector {
  const { address } = connector;
  if (address.origin === origin && address.basePath === basePath) return connector;
  throw denied(`the connector ${showRef(ref)} is no longer at ${origin}${basePath}`);
}

interface UnconnectedPull {
  readonly target: RepositoryTarget;
  readonly image: WantedImage;
  readonly login: ImageLogin;
  /** Why the ServiceAccount's annotation does not help. */
  readonly remark: string | undefined;
}

/**
 * Pulls an image for which there is no connector, without any credential, or refuses it.
 * @throws RegistryError 403
 */
async function pullWithoutConnector(
  request: IncomingMessage,
  response: ServerResponse,
  report: ReportDraft,
  { target, image, login, remark }: UnconnectedPull,
  { anonymous }: MirrorOptions,
): Promise<void> {
  const { registry, repository } = image;
  const { identity, namespace } = login;
  const where = `no connector of ${namespace} or ${sharedNamespace} is at ${registry.origin} for ${repository}`;
  const reason = remark === undefined ? where : `${where}; ${remark}`;
  if (anonymous === undefined) {
    throw denied(reason, { detail: "create a connector with that address" });
  }
  const registryRequest = {
    target,
    identity,
    findConnector: async () => connectorWithoutLogin(registry),
  };
  await handleRegistryRequest(request, response, report, registryRequest, anonymous).catch(
    (error: unknown) => {
      const known = asRegistryError(error);
      if (known?.status !== 403) throw error;
      throw denied(`${known.message}; ${reason}`, { cause: error });
    },
  );
}

/** What stands for a connector where there is none. It has no name that a connector could have. */
const connectorWithoutLogin = (address: RegistryAddress): Connector => ({
  namespace: "",
  name: "",
  uid: `without a connector at ${address.origin}`,
  address,
  addressExtensions: [],
  allowedRealmHosts: [],
  allowedRedirectHosts: [],
});
