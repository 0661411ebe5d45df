import { amazon } from "./amazon.ts";
import { artifactory } from "./artifactory.ts";
import { azure } from "./azure.ts";
import { dockerHub } from "./docker-hub.ts";
import { github } from "./github.ts";
import { gitlab } from "./gitlab.ts";
import { google } from "./google.ts";
import { harbor } from "./harbor.ts";
import { quay } from "./quay.ts";
import type { RegistryScenario } from "./scenario.ts";

export const registryScenarios: readonly RegistryScenario[] = [
  dockerHub,
  harbor,
  github,
  amazon,
  google,
  azure,
  quay,
  gitlab,
  artifactory,
];
