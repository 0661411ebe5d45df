import { runProgram } from "../test/support/program.ts";
import type { Measured } from "./comparison.ts";

export interface Transfer {
  readonly url: string;
  /** Left out where it is empty. */
  readonly authorization: string;
  readonly authorityFile: string;
  /** What is sent; without it, something is fetched and thrown away. */
  readonly upload?: string;
  /** The proxy to go through, with its login: `http://user:password@127.0.0.1:3128`. */
  readonly proxy?: string;
  /** How much has to go over, in bytes. */
  readonly bytes: number;
}

/**
 * Moves a blob with curl.
 * @throws where another amount went over than should
 */
export async function transfer(options: Transfer): Promise<Measured> {
  const { stdout, stderr } = await curl([
    ...settingsOf(options),
    ["fail"],
    ["write-out", "%{http_code} %{time_total} %{size_download} %{size_upload}"],
  ]);
  const [status, seconds = 0, downloaded = 0, uploaded = 0] = stdout.split(" ").map(Number);
  const amount = options.upload === undefined ? downloaded : uploaded;
  if (amount !== options.bytes || status === undefined || status >= 300) {
    throw new Error(`${options.url}: status ${status}, ${amount} of ${options.bytes} B; ${stderr}`);
  }
  return { amount, seconds };
}

export interface ManyTransfers extends Omit<Transfer, "upload" | "bytes"> {
  readonly times: number;
  /** How many are under way at once. */
  readonly connections: number;
}

/**
 * Fetches something many times, with a new connection for each.
 * @returns how often, and in which time
 * @throws where any of them fails
 */
export async function transferAnew(options: ManyTransfers): Promise<Measured> {
  const { times, connections } = options;
  const begin = performance.now();
  const { stdout, stderr } = await curl([
    ...settingsOf(options, times),
    ["header", "Connection: close"],
    ["parallel"],
    ["parallel-immediate"],
    ["parallel-max", String(connections)],
    ["write-out", "%{http_code} "],
  ]);
  const seconds = (performance.now() - begin) / 1000;
  const answers = stdout.trim().split(" ");
  if (answers.length === times && answers.every((status) => status === "200")) {
    return { amount: times, seconds };
  }
  throw new Error(`${options.url}: ${[...new Set(answers)].join(", ")}; ${stderr}`);
}

export interface SlowTransfer extends Omit<Transfer, "upload" | "bytes"> {
  readonly clients: number;
  readonly bytesPerSecond: number;
  readonly seconds: number;
}

/**
 * Fetches something over many connections at once, slowly, and gives up after some time.
 * @returns how much each has read by then, in bytes
 */
export async function readSlowly(options: SlowTransfer): Promise<readonly number[]> {
  const { clients, bytesPerSecond, seconds } = options;
  const { stdout } = await curl([
    ...settingsOf(options, clients),
    ["parallel"],
    ["parallel-immediate"],
    ["parallel-max", String(clients)],
    ["limit-rate", String(bytesPerSecond)],
    ["max-time", String(seconds)],
    ["write-out", "%{size_download} "],
  ]);
  return stdout.trim().split(" ").map(Number);
}

function settingsOf(options: Omit<Transfer, "bytes">, times = 1): Settings {
  const { url, authorization, authorityFile, upload, proxy } = options;
  const transfers = Array.from({ length: times }, () => ["url", url] as const);
  return [
    ...transfers.flatMap((transfer) => [transfer, ["output", "/dev/null"] as const]),
    ...(authorization === "" ? [] : [["header", `Authorization: ${authorization}`] as const]),
    ...(proxy === undefined ? [] : [["proxy", proxy] as const]),
    ["header", "Expect:"], // registry clients don't wait for a "100 Continue"
    ["cacert", authorityFile],
    ["http1.1"],
    ...(upload === undefined ? [] : [["upload-file", upload] as const]),
  ];
}

type Settings = readonly (readonly [name: string, value?: string])[];

/** The settings go through stdin: command lines are for everybody to read. */
function curl(settings: Settings): Promise<{ readonly stdout: string; readonly stderr: string }> {
  const input = settings
    .map(([name, value]) => (value === undefined ? name : `${name} = ${JSON.stringify(value)}`))
    .join("\n");
  return runProgram("curl", ["--disable", "--silent", "--show-error", "--config", "-"], {
    input,
    timeout: 300_000,
  });
}
