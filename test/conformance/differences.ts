/** What is not the same through the proxy, and why. Whatever is not listed here is the same. */
export interface Difference {
  readonly chapter: string;
  readonly workflows: readonly string[];
  /** The kinds of registry; all of them, where none is named. */
  readonly kinds?: readonly string[];
  /** What differs in any of its answers; `its own` where the proxy answers in place of the registry. */
  readonly fields: readonly string[] | "its own";
  readonly reason: string;
}

const docker = ["2.8 tokens", "2.8 htpasswd", "2.8 open"];
const refusal =
  "The proxy accepts only clients with the token of a volume, even if the registry accepts everybody; its challenge is Basic and names no token server.";

export const differences: readonly Difference[] = [
  {
    chapter: "Pull",
    workflows: ["support of the API"],
    kinds: [...docker, "ocimem"],
    fields: "its own",
    reason:
      "The proxy answers `/v2/` itself, since it names no connector: `{}` as `application/json`. Others have a charset there, or no body.",
  },
  {
    chapter: "Pull: ranges and conditions",
    workflows: [
      "the range bytes=500-0",
      "the range bytes=2048-",
      "the range bytes=5000-10000",
      "the range items=0-9",
      "the range nonsense",
    ],
    kinds: docker,
    fields: ["body", "header content-length"],
    reason:
      "docker-registry 2.8 announces the length of the blob, sends a short error and closes. Through the proxy the length is correct, since clients would wait for the rest.",
  },
  {
    chapter: "Push: uploads that are under way",
    workflows: ["an upload that nobody has begun"],
    fields: "its own",
    reason:
      "Upload URLs are sealed. The proxy answers one that it has not issued with 404 `BLOB_UPLOAD_UNKNOWN`, and sends no request to the registry.",
  },
  {
    chapter: "Push: mounts across repositories",
    workflows: [
      "from behind another connector",
      "of a blob that is not there",
      "from a repository that does not exist",
    ],
    kinds: ["ocimem"],
    fields: "its own",
    reason:
      "ocimem answers 404 where the specification requires that an upload begins (202). The proxy begins one, since some tools abort their push otherwise (containerd#14086).",
  },
  {
    chapter: "Push: blobs",
    workflows: [
      "sha512: PUT of unknown length",
      "sha512: three chunks",
      "sha512: three chunks, the last by PUT",
      "sha512: streamed",
    ],
    kinds: ["ocimem"],
    fields: ["body", "header content-length"],
    reason:
      "ocimem supports only SHA-256, and its error contains the whole blob. The proxy passes on the first 64 KiB of an error.",
  },
  {
    chapter: "Push: manifests",
    workflows: ["of more than 8 MiB"],
    fields: "its own",
    reason:
      "The proxy keeps a manifest in memory so that it can send it again, and refuses larger ones with 413 `SIZE_INVALID`. Registries must accept 4 MiB, and these accept no more.",
  },
  {
    chapter: "Content discovery: referrers",
    workflows: ["of something that is no digest"],
    fields: "its own",
    reason: "The proxy refuses it itself: 400 `DIGEST_INVALID`, as the specification demands.",
  },
  {
    chapter: "Refusals",
    workflows: ["somebody without a login", "somebody with a wrong login"],
    fields: "its own",
    reason: refusal,
  },
  {
    chapter: "Refusals",
    workflows: ["a repository that may only be read"],
    kinds: ["2.8 tokens", "3 tokens", "1.1 tokens", "1.0"],
    fields: "its own",
    reason:
      "If the registry refuses the connector's account, no other login of the client would help: the response is 403 `DENIED` with the registry's error code, in place of 401 and a challenge that makes tools ask for a password.",
  },
  {
    chapter: "Refusals",
    workflows: ["methods that a path does not have", "names that are none", "paths that are none"],
    fields: "its own",
    reason:
      "The proxy refuses requests outside the API itself, with an error of the specification; some registries respond with a page of text or a redirect, or crash.",
  },
  {
    chapter: "Refusals",
    workflows: ["a colon that is encoded"],
    kinds: ["1.1 tokens", "1.1 Basic", "1.0"],
    fields: "its own",
    reason:
      "The proxy reads `sha256%3A…` as a colon, as most registries do, and sends a colon. It accepts no other encoding in a path.",
  },
];

/** What is known to differ in a workflow with a kind of registry. */
export const knownDifferences = (
  chapter: string,
  workflow: string,
  kind: string,
): readonly Difference[] =>
  differences.filter(
    (difference) =>
      difference.chapter === chapter &&
      difference.workflows.includes(workflow) &&
      (difference.kinds?.includes(kind) ?? true),
  );
