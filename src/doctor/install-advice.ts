/** What puts right whatever of the installation is missing or has been changed. */
export const install = "install it again: kubectl apply -k daemonset/";
