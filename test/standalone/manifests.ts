/** What a test's files hold, and no log line may. */
export const password = "correct-horse-7";

export const connectorYaml = (name: string, address = "https://registry.example.com"): string => `\
apiVersion: connectors.alauda.io/v1alpha1
kind: Connector
metadata: {name: ${name}}
spec:
  connectorClassName: oci
  address: ${address}
  auth: {name: tokenAuth, secretRef: {name: ${name}}}
`;

export const secretYaml = (name: string, fields = ""): string => `\
apiVersion: v1
kind: Secret
metadata: {name: ${name}}
type: kubernetes.io/basic-auth
stringData: {username: robot, password: ${password}}
${fields}`;

/** A connector and its Secret. */
export const pairYaml = (name: string, address?: string): string =>
  `${connectorYaml(name, address)}---\n${secretYaml(name)}`;
