/** What the distribution specification 1.1 leaves to a registry. Tests may change it while the registry runs. */
export interface Features {
  /** The referrers API, and with it `OCI-Subject`. */
  referrers: boolean;
  /** How many referrers one answer holds; the others are behind its `Link`. */
  referrersPage: number;
  /** `DELETE` of tags, manifests and blobs. */
  deletes: boolean;
  /** A blob in the `POST` that would begin its upload. */
  singlePost: boolean;
  /** Mounts a blob without being told from which repository. */
  anonymousMounts: boolean;
  /** Bytes of the smallest chunk that may be followed by another one. */
  smallestChunk: number;
  /** Tags beside the digest that a manifest is pushed by, as `?tag=`. */
  tagParameters: boolean;
}

export const allFeatures = (): Features => ({
  referrers: true,
  referrersPage: 1000,
  deletes: true,
  singlePost: true,
  anonymousMounts: true,
  smallestChunk: 0,
  tagParameters: true,
});
