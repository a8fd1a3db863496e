import { readFileSync } from 'node:fs';
import { fields, type Result, result } from '../command/result.ts';

/** The release of this cde. */
export function ownVersion(): string {
  const text = readFileSync(new URL('../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}

export async function version(): Promise<Result> {
  const versions = {
    cde: ownVersion(),
    node: process.versions.node,
    platform: `${process.platform}-${process.arch}`,
  };
  return result(versions, () => [fields(Object.entries(versions))]);
}
