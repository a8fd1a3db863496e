import { apiVersions, type Kube, type ModelKind } from '../api/models.ts';

/** Makes an object of the workspace; `more` is added to its metadata. */
export type MakeObject = <Kind extends ModelKind>(
  kind: Kind,
  name: string,
  content: Omit<Kube<Kind>, 'apiVersion' | 'kind' | 'metadata'>,
  more?: { labels?: Record<string, string>; annotations?: Record<string, string> },
) => Kube<Kind>;

/** Makes objects in this namespace, with these labels. */
export const makeObjectsIn =
  (namespace: string, labels: Record<string, string>): MakeObject =>
  <Kind extends ModelKind>(kind: Kind, name: string, content: object, more: object = {}) => {
    const metadata = { name, namespace, labels: { ...labels }, ...more };
    return { apiVersion: apiVersions[kind], kind, ...content, metadata } as Kube<Kind>;
  };
