import * as activity from './activity.ts';
import * as agent from './agent.ts';
import * as cleanup from './cleanup.ts';
import * as clusters from './clusters.ts';
import * as diagnosis from './diagnosis.ts';
import type { Endpoint } from './endpoint.ts';
import * as health from './health.ts';
import * as identity from './identity.ts';
import * as nodes from './nodes.ts';
import * as ports from './ports.ts';
import * as satellitePorts from './satellite-ports.ts';
import * as satelliteTerminals from './satellite-terminals.ts';
import * as satellites from './satellites.ts';
import * as sessions from './sessions.ts';
import * as templates from './templates.ts';
import * as workspaces from './workspaces.ts';

const isEndpoint = (value: unknown): value is Endpoint =>
  typeof value === 'object' && value !== null && 'method' in value && 'path' in value;

/** The endpoints of the contract by name, for tests that walk all of them. */
export const contract: Record<string, Endpoint> = Object.fromEntries(
  [
    activity,
    agent,
    cleanup,
    clusters,
    diagnosis,
    health,
    identity,
    nodes,
    ports,
    satellitePorts,
    satelliteTerminals,
    satellites,
    sessions,
    templates,
    workspaces,
  ].flatMap((module) =>
    Object.entries(module as Record<string, unknown>).filter((entry): entry is [string, Endpoint] =>
      isEndpoint(entry[1]),
    ),
  ),
);

export const endpoints: Endpoint[] = Object.values(contract);
