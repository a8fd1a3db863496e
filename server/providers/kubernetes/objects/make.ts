import type { KubeObject } from '../api/client.ts';

/** Makes an object in the workspace's namespace, with its labels. */
export type MakeObject = (
  apiVersion: string,
  kind: string,
  name: string,
  rest: object,
  more?: object,
) => KubeObject;
