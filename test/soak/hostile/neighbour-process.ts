/**
 * A neighbour in a process of its own, with a registry of its own: `fork("neighbour-process.ts", [ADDRESS])`.
 *
 * It first sends `{registry}`, the registry's URL. A {@link Question} lets it measure, until the next message; then it
 * sends its {@link Measurement}. Each request takes a connection of its own, as those of tools do that have just begun.
 */
import { Agent, request as httpRequest } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { startFakeRegistry } from "../../support/fake-registry.ts";
import { addImage } from "../../support/fake-registry-content.ts";

/** Where the neighbour asks, and with which token. */
export interface Question {
  /** `127.0.0.1:34567` of the proxy. */
  readonly host: string;
  readonly token: string;
  /** Its connector: `/v2/namespaces/team-b/connectors/quiet`. */
  readonly base: string;
}

/** What came of the requests. */
export interface Measurement {
  /** How long each GET took, in milliseconds from the time at which it was due to the end of its body. */
  readonly durationsMs: readonly number[];
  /** What came in place of a manifest or of a push, and how often. */
  readonly refused: Readonly<Record<string, number>>;
  readonly pushes: number;
}

const [address = "127.0.0.1"] = process.argv.slice(2);
const intervalMs = 100;
/** So many GETs for each push. */
const getsPerPush = 10;
const patienceMs = 60_000;

const registry = await startFakeRegistry({ hostname: address });
const { manifest, blobs } = addImage(registry.repository("app"), "1");
const content = blobs.get(manifest.digest) ?? Buffer.alloc(0);

process.once("disconnect", () => process.exit()); // whoever has started it is gone
process.on("message", (message) => {
  if (message === "report") void report();
  else begin(message as Question);
});
process.send?.({ registry: registry.url });

let timer: NodeJS.Timeout | undefined;
let durationsMs: number[] = [];
let refused: Record<string, number> = {};
let pushes = 0;
const underWay = new Set<Promise<void>>();

function begin(question: Question): void {
  let count = 0;
  const first = performance.now();
  durationsMs = [];
  refused = {};
  pushes = 0;
  // Whatever a busy machine makes of a timer, as many requests are due as time has passed.
  timer = setInterval(() => {
    for (; performance.now() >= first + count * intervalMs; count += 1) {
      track(get(question, first + count * intervalMs));
      if (count % getsPerPush === 0) track(push(question));
    }
    registry.requests.splice(0);
  }, 10);
}

async function report(): Promise<void> {
  clearInterval(timer);
  await Promise.race([Promise.all(underWay), sleep(patienceMs)]);
  process.send?.({ durationsMs, refused, pushes } satisfies Measurement);
}

function track(request: Promise<void>): void {
  underWay.add(request);
  void request.finally(() => underWay.delete(request));
}

async function get(question: Question, dueAt: number): Promise<void> {
  const outcome = await ask(question, "GET", "1");
  durationsMs.push(performance.now() - dueAt);
  if (outcome !== "200") note(`GET ${outcome}`);
}

async function push(question: Question): Promise<void> {
  const outcome = await ask(question, "PUT", "2");
  pushes += 1;
  if (outcome !== "201") note(`PUT ${outcome}`);
}

function note(what: string): void {
  refused[what] = (refused[what] ?? 0) + 1;
}

/** @returns the status, or the code of the error that came instead of it, or of a whole body */
function ask({ host, token, base }: Question, method: string, tag: string): Promise<string> {
  const [hostname, port] = host.split(":");
  const isPush = method === "PUT";
  return new Promise((resolve) => {
    const sent = httpRequest({
      agent: new Agent({ keepAlive: false }),
      hostname,
      port,
      method,
      path: `${base}/app/manifests/${tag}`,
      headers: {
        authorization: `Bearer ${token}`,
        ...(isPush ? { "content-type": manifest.mediaType } : { accept: manifest.mediaType }),
      },
    });
    sent.setTimeout(patienceMs, () => sent.destroy(new Error("timeout")));
    sent.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    sent.on("response", (response) => {
      response.resume().on("close", () => {
        resolve(response.complete ? String(response.statusCode) : "cut");
      });
    });
    sent.end(isPush ? content : undefined);
  });
}
