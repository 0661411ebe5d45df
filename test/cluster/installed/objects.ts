/** Manifests as users write them, as short as a test wants to say them. */

export const driver = "connectors-csi";

export const namespace = (name: string, labels: Readonly<Record<string, string>> = {}): object => ({
  apiVersion: "v1",
  kind: "Namespace",
  metadata: { name, labels },
});

export const restricted = { "pod-security.kubernetes.io/enforce": "restricted" };

export const login = (at: Place, username: string, password: string): object => ({
  apiVersion: "v1",
  kind: "Secret",
  type: "kubernetes.io/basic-auth",
  metadata: at,
  stringData: { username, password },
});

export interface Place {
  readonly namespace: string;
  readonly name: string;
}

export interface ConnectorSpec {
  readonly address: string;
  /** The name of the Secret with the login. */
  readonly secret?: string;
  readonly caCertSecretRef?: object;
  readonly params?: readonly object[];
}

export const connector = (at: Place, { secret, ...spec }: ConnectorSpec): object => ({
  apiVersion: "connectors.alauda.io/v1alpha1",
  kind: "Connector",
  metadata: at,
  spec: {
    connectorClassName: "oci",
    ...(secret === undefined ? {} : { auth: { name: "tokenAuth", secretRef: { name: secret } } }),
    ...spec,
  },
});

/** The Role and RoleBinding that let a namespace's ServiceAccounts use connectors of a namespace. */
export const right = (
  at: Place,
  { connectors, of }: { readonly connectors: readonly string[]; readonly of: string },
): readonly object[] => {
  const group = "rbac.authorization.k8s.io";
  const apiVersion = `${group}/v1`;
  return [
    {
      apiVersion,
      kind: "Role",
      metadata: at,
      rules: [
        {
          apiGroups: ["connectors.alauda.io"],
          resources: ["connectors"],
          resourceNames: connectors,
          verbs: ["get"],
        },
      ],
    },
    {
      apiVersion,
      kind: "RoleBinding",
      metadata: at,
      subjects: [{ kind: "Group", apiGroup: group, name: `system:serviceaccounts:${of}` }],
      roleRef: { apiGroup: group, kind: "Role", name: at.name },
    },
  ];
};

export interface PodOptions {
  /** The volume's attributes; without any there is no volume. It is mounted at /run/connectors. */
  readonly volume?: Readonly<Record<string, string>>;
  readonly image?: string;
  readonly command?: readonly string[];
  /** Beside what Pod Security `restricted` asks for. */
  readonly security?: object;
  readonly pod?: object;
  readonly labels?: Readonly<Record<string, string>>;
}

/**
 * A Pod as Pod Security `restricted` wants it, which sleeps unless told otherwise. Without a second to end in it
 * would be deleted before the kubelet has heard of it, and its volume unmounted some time after that.
 */
export const pod = (at: Place, options: PodOptions): object => {
  const { volume, image = "localhost/box:1", command = ["sleep", "1000000"], labels } = options;
  const mounts = volume === undefined ? [] : [{ name: "connectors", mountPath: "/run/connectors" }];
  const csi = { driver, readOnly: true, volumeAttributes: volume };
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { ...at, labels },
    spec: {
      terminationGracePeriodSeconds: 1,
      restartPolicy: "Never",
      securityContext: {
        runAsNonRoot: true,
        runAsUser: 1000,
        runAsGroup: 1000,
        seccompProfile: { type: "RuntimeDefault" },
        ...options.security,
      },
      containers: [
        {
          name: "main",
          image,
          imagePullPolicy: "Never",
          command,
          securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] } },
          volumeMounts: mounts,
        },
      ],
      ...(volume === undefined ? {} : { volumes: [{ name: "connectors", csi }] }),
      ...options.pod,
    },
  };
};
