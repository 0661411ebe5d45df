/**
 * Is imported into a program that is attacked: at each SIGUSR2 it collects its garbage, and says how many bytes live.
 * That is what an attack has left. The memory that the system counts has pages, too, which V8 and glibc keep of the
 * highest tide and use again.
 */
import { getHeapStatistics, setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;
let count = 0;
process.on("SIGUSR2", () => {
  collectGarbage();
  const { used_heap_size: heapBytes, external_memory: externalBytes } = getHeapStatistics();
  count += 1;
  console.log(`live memory ${count}: ${heapBytes + externalBytes}`);
});
