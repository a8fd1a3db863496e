import { z } from 'zod';

/** A workspace as `owner/name`. */
const workspace = z.string();
const ofWorkspace = <K extends string>(kind: K) => z.object({ kind: z.literal(kind), workspace });
const plain = <K extends string>(kind: K) => z.object({ kind: z.literal(kind) });

/**
 * What the reader of an error can do about it, as data: `cde` words an action as a command, the dashboard as a
 * button. Clients skip the kinds they do not know, so a newer server can add some.
 */
export const Action = z.discriminatedUnion('kind', [
  plain('sign-in'),
  plain('list-workspaces'),
  ofWorkspace('show-workspace'),
  ofWorkspace('start-workspace'),
  ofWorkspace('restart-workspace'),
  ofWorkspace('update-workspace'),
  ofWorkspace('open-terminal'),
  ofWorkspace('read-build-log'),
  ofWorkspace('cancel-build'),
  ofWorkspace('list-ports'),
  z.object({ kind: z.literal('forward-port'), workspace, port: z.number().int() }),
  plain('list-homes'),
  plain('list-templates'),
  z.object({ kind: z.literal('show-template'), template: z.string() }),
  plain('validate-template'),
  plain('publish-template'),
  plain('list-clusters'),
  z.object({ kind: z.literal('show-cluster'), cluster: z.string() }),
  z.object({ kind: z.literal('configure-cluster'), cluster: z.string() }),
  plain('add-cluster'),
  plain('print-cluster-role'),
  plain('list-orphans'),
  plain('clean-orphans'),
  plain('list-nodes'),
  plain('list-satellites'),
  plain('add-satellite'),
  z.object({ kind: z.literal('allow-satellite-web'), satellite: z.string() }),
  plain('list-users'),
  plain('list-tokens'),
  plain('create-token'),
]);
export type Action = z.infer<typeof Action>;
