import type { Certificates } from "./certificates.ts";
import { type Nginx, startNginx } from "./nginx.ts";
import { basic, type Registries, type Registry } from "./registries.ts";

/**
 * nginx as a reverse proxy that adds a fixed login: what somebody would set up who needs no rights
 * and no volumes. Connections to registries are kept, and uploads are passed on as they come.
 * @param settings further lines of its configuration
 */
export function startNginxProxy(
  { named }: Registries,
  certificates: Certificates,
  settings: string,
): Promise<Nginx> {
  const registries = Object.entries(named);
  const configuration = {
    accessLog: true,
    besides: registries.map(upstream).join("\n"),
    server: `
      proxy_http_version 1.1;
      proxy_request_buffering off;
      proxy_ssl_protocols TLSv1.2 TLSv1.3;
      proxy_ssl_verify on;
      proxy_ssl_trusted_certificate ${certificates.authorityFile};
      proxy_ssl_name 127.0.0.1;
      ${settings}
      ${registries.map(location).join("\n")}`,
  };
  return startNginx(configuration, certificates);
}

const upstream = ([name, { address }]: [string, Registry]): string =>
  `upstream ${name} { server ${new URL(address).host}; keepalive 32; }`;

const location = ([name, { address, login }]: [string, Registry]): string =>
  `location /${name}/ {
    proxy_pass ${new URL(address).protocol}//${name}/;
    proxy_redirect / /${name}/;
    proxy_set_header Connection "";
    proxy_set_header Authorization "${basic(login)}";
  }`;
