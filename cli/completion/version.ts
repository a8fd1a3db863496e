import { readFileSync } from 'node:fs';
import { fields, type Result, result } from '../command/result.ts';

export async function version(): Promise<Result> {
  const text = readFileSync(new URL('../package.json', import.meta.url), 'utf8');
  const versions = {
    cde: (JSON.parse(text) as { version: string }).version,
    node: process.versions.node,
    platform: `${process.platform}-${process.arch}`,
  };
  return result(versions, () => [fields(Object.entries(versions))]);
}
