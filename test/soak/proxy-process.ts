/** A proxy in a process of its own, with one connector: `node proxy-process.ts URL USERNAME PASSWORD`. */
import { startTestProxy } from "../proxy/test-proxy.ts";

const [url = "", username = "", password = ""] = process.argv.slice(2);
const proxy = await startTestProxy();
proxy.connect("soak", url, { credential: { username, password } });
console.log(`${JSON.stringify({ host: proxy.http, token: proxy.token("soak") })} ready`);
// What a test would look at afterwards would be all that grows here.
setInterval(() => proxy.surroundings.secretReads.splice(0), 1000);
