import { challenges } from "./challenges.ts";
import { documents } from "./documents.ts";
import { growth } from "./growth.ts";
import { hostileRequests } from "./hostile-requests.ts";
import { locations } from "./locations.ts";
import type { FuzzProperty } from "./property.ts";
import { tokenResponses } from "./token-responses.ts";
import { volumeAttributes } from "./volume-attributes.ts";

export const properties: readonly FuzzProperty[] = [
  hostileRequests,
  locations,
  tokenResponses,
  challenges,
  documents,
  volumeAttributes,
  growth,
];
