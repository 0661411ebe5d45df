import type { Talk } from "./talk.ts";

/** Something that the distribution specification describes, as requests to be sent. */
export interface Workflow {
  readonly name: string;
  readonly run: (talk: Talk) => Promise<void>;
}

/** Workflows of one chapter of the specification. */
export interface Chapter {
  readonly title: string;
  readonly workflows: readonly Workflow[];
}

export const chapter = (
  title: string,
  workflows: Readonly<Record<string, Workflow["run"]>>,
): Chapter => ({
  title,
  workflows: Object.entries(workflows).map(([name, run]) => ({ name, run })),
});

/** The name of a repository for a workflow: `conformance/a-blob-in-one-put`. */
export const repositoryFor = (name: string): string =>
  `conformance/${name
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-")
    .replace(/^-|-$/g, "")}`;
