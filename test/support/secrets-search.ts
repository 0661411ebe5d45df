import { access, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";

/** A secret that was found where it must not be. */
export interface Finding {
  /** The secret's name, not the secret. */
  readonly secret: string;
  /** How it was written: `plain`, `base64`, `percent-encoded`, … */
  readonly form: string;
  /** A name of an output, a file, or `/proc/<pid>/cmdline` with the program's name. */
  readonly where: string;
}

export interface SearchOptions {
  /** By a name that may be shown. Values of less than 8 characters are found by chance, and refused. */
  readonly secrets: Readonly<Record<string, string>>;
  /** Texts, by name: logs, error messages, responses. */
  readonly outputs?: Readonly<Record<string, string | Buffer>>;
  /** Every file below them. */
  readonly folders?: readonly string[];
  /** Command lines and environments of this process's descendants. */
  readonly processes?: boolean;
}

/** Looks for secrets, also encoded ones. What has gone while it looked is left out. */
export async function searchSecrets(options: SearchOptions): Promise<Finding[]> {
  const wanted = Object.entries(options.secrets).flatMap(([name, value]) => {
    if (value.length < 8) throw new RangeError(`the secret "${name}" is too short to search for`);
    return formsOf(value).map((form) => ({ secret: name, ...form }));
  });
  const findings: Finding[] = [];
  const look = (where: string, bytes: Buffer): void => {
    for (const { secret, form, text } of wanted) {
      if (bytes.includes(text)) findings.push({ secret, form, where });
    }
  };
  for (const [name, output] of Object.entries(options.outputs ?? {}))
    look(name, Buffer.from(output));
  for (const folder of options.folders ?? []) {
    await access(folder); // a misspelt folder would hold no secret
    for (const file of await filesBelow(folder)) look(file, await readIfThere(file));
  }
  if (options.processes) {
    for (const pid of await descendants(process.pid)) {
      const commandLine = await readIfThere(`/proc/${pid}/cmdline`);
      const program = commandLine.toString("latin1").split("\0", 1)[0];
      look(`/proc/${pid}/cmdline (${program})`, commandLine);
      look(`/proc/${pid}/environ (${program})`, await readIfThere(`/proc/${pid}/environ`));
    }
  }
  return findings;
}

/**
 * Looks at the descendants' command lines and environments again and again while `action` runs,
 * since a program shows them only as long as it runs.
 */
export async function searchProcessesDuring<T>(
  secrets: SearchOptions["secrets"],
  action: () => Promise<T>,
): Promise<{ readonly result: T; readonly findings: readonly Finding[] }> {
  const findings = new Map<string, Finding>();
  let isOver = false;
  const watch = async (): Promise<void> => {
    while (!isOver) {
      for (const finding of await searchSecrets({ secrets, processes: true })) {
        findings.set(JSON.stringify(finding), finding);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  const watching = watch();
  try {
    const result = await action();
    isOver = true;
    await watching;
    return { result, findings: [...findings.values()] };
  } finally {
    isOver = true;
  }
}

interface Form {
  readonly form: string;
  readonly text: string;
}

/** The ways in which a text may be written, each once. */
function formsOf(secret: string): readonly Form[] {
  const bytes = Buffer.from(secret);
  const percent = encodeURIComponent(secret);
  const forms: Form[] = [
    { form: "plain", text: secret },
    { form: "percent-encoded", text: percent },
    {
      form: "percent-encoded",
      text: percent.replace(/%../g, (code) => code.toLowerCase()),
    },
    { form: "JSON", text: JSON.stringify(secret).slice(1, -1) },
    { form: "hexadecimal", text: bytes.toString("hex") },
  ];
  for (const form of ["base64", "base64url"] as const) {
    for (const shift of [0, 1, 2]) forms.push({ form, text: inside(bytes, shift, form) });
  }
  return [...Map.groupBy(forms, ({ text }) => text).values()].flatMap((same) => same.slice(0, 1));
}

/**
 * Base64 of the secret as it looks within a longer text, such as `user:secret`, where `shift` bytes
 * stand before it in its first group of three: without the signs that its neighbours take part in.
 */
function inside(bytes: Buffer, shift: number, encoding: "base64" | "base64url"): string {
  const text = Buffer.concat([Buffer.alloc(shift), bytes]).toString(encoding);
  const first = Math.ceil((shift * 8) / 6);
  const last = Math.floor(((shift + bytes.length) * 8) / 6);
  return text.slice(first, last);
}

async function filesBelow(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  const files: string[] = [];
  for (const entry of entries) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) files.push(...(await filesBelow(path)));
    else if (entry.isFile()) files.push(path);
  }
  return files;
}

async function readIfThere(file: string): Promise<Buffer> {
  try {
    return await readFile(file);
  } catch {
    return Buffer.alloc(0);
  }
}

/** Processes that this one has started, and theirs, without itself. */
async function descendants(ancestor: number): Promise<number[]> {
  const children = new Map<number, number[]>();
  for (const name of await readdir("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const status = (await readIfThere(`/proc/${name}/status`)).toString();
    const parent = Number(/^PPid:\s*(\d+)$/m.exec(status)?.[1] ?? 0);
    children.set(parent, [...(children.get(parent) ?? []), Number(name)]);
  }
  const below = (pid: number): number[] =>
    (children.get(pid) ?? []).flatMap((child) => [child, ...below(child)]);
  return below(ancestor);
}
