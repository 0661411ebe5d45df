import { type ConnectorRef, parseConnectorRef, showRef } from "../connector/connector-ref.ts";
import { parseJson, property } from "../connector/document.ts";
import { readCurrent } from "./generation.ts";

/** What a driver needs to know of a published volume later on, even one that was started after the publish. */
export interface PublishRecord {
  readonly volumeId: string;
  readonly connectors: readonly ConnectorRef[];
  readonly tokenExpiresAt: Date;
}

/** The record's file in each generation of a volume. No link at the volume's root leads to it. */
export const recordName = "..volume.json";

/** The content of the record's file. */
export function formatRecord({ volumeId, connectors, tokenExpiresAt }: PublishRecord): string {
  const document = {
    volumeId,
    connectors: connectors.map(showRef),
    tokenExpiresAt: tokenExpiresAt.toISOString(),
  };
  return `${JSON.stringify(document)}\n`;
}

/** The record of the volume that is mounted at a path, or undefined where there is none or it is damaged. */
export function readRecord(root: string): PublishRecord | undefined {
  const text = readCurrent(root, recordName);
  return text === undefined ? undefined : parseRecord(text);
}

function parseRecord(text: string): PublishRecord | undefined {
  const document = parseJson(text);
  const volumeId = property(document, "volumeId");
  const tokenExpiresAt = new Date(String(property(document, "tokenExpiresAt")));
  const names = property(document, "connectors");
  if (typeof volumeId !== "string" || Number.isNaN(tokenExpiresAt.getTime())) return undefined;
  if (!Array.isArray(names)) return undefined;
  const refs = names.map((name) => parseConnectorRef(String(name), "", "connectors"));
  return {
    volumeId,
    connectors: refs.flatMap((ref) => (ref.ok ? [ref.value] : [])),
    tokenExpiresAt,
  };
}
