/**
 * Clients in a process of their own: `fork("clients-process.ts", [HOST, TOKEN, COUNT])`. Half of them pull, half push.
 * Sends its tally each second. The first message that it gets is its last one: it finishes, and ends.
 */
import { pacedClient } from "./paced-client.ts";
import { emptyTally, prepare, pullForEver, pushForEver, type Worker } from "./workload.ts";

const [host = "", token = "", count = "100"] = process.argv.slice(2);
const tally = emptyTally();
let isOver = false;
const worker = (): Worker => ({
  client: pacedClient({ host, token }),
  tally,
  isOver: () => isOver,
});
process.once("disconnect", () => process.exit()); // whoever has started it is gone
process.once("message", () => {
  isOver = true;
});
await prepare(worker());
const report = (): void => void process.send?.(tally);
const timer = setInterval(report, 1000);
await Promise.all(
  Array.from({ length: Number(count) }, (_, number) => {
    const run = number % 2 === 0 ? pullForEver : pushForEver;
    return run(worker(), number >> 1);
  }),
);
clearInterval(timer);
process.send?.(tally, () => process.exit());
