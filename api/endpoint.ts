import type { z } from 'zod';

/** The four roles, the most powerful first. docs/roles.md lists what each can do. */
export const roles = ['owner', 'template-admin', 'auditor', 'member'] as const;
export type Role = (typeof roles)[number];

/**
 * What a request needs. `public`: nothing. `signed-in`: any user. `agent`: the build token of an agent. `satellite`: the
 * token of a satellite. All others are granted to roles in server/identity/auth/authorize.ts; `…:own` is implied for the owner
 * of the resource in the route.
 */
export const permissions = [
  'public',
  'signed-in',
  'agent',
  'satellite',
  'workspace:create',
  'workspace:read',
  'workspace:operate',
  'workspace:connect',
  'workspace:delete',
  'template:read',
  'template:write',
  'cluster:read',
  'cluster:write',
  'satellite:read',
  'satellite:write',
  'user:read',
  'user:write',
  'token:own',
  'audit:read',
  'metrics:read',
  'cleanup:read',
  'cleanup:write',
  'session:read',
  'health:read',
] as const;
export type Permission = (typeof permissions)[number];

export type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';

/** One REST route, as data: the server serves it, the client calls it, OpenAPI documents it. */
export interface Endpoint<
  Params extends z.ZodType = z.ZodType,
  Query extends z.ZodType = z.ZodType,
  Body extends z.ZodType = z.ZodType,
  Reply extends z.ZodType = z.ZodType,
> {
  method: Method;
  /** In Fastify's syntax: `/api/v1/workspaces/:workspace`. */
  path: string;
  summary: string;
  tag: string;
  permission: Permission;
  params?: Params;
  query?: Query;
  body?: Body;
  /** Absent: 204 without a body. */
  reply?: Reply;
  /** The status of a success; by default 200, or 204 without a reply. */
  status?: number;
  /** True if a POST supports `Idempotency-Key` (docs/api.md). */
  idempotent?: boolean;
  /** How many of these one user can have in progress, for expensive ones and those that are held open. */
  maxConcurrent?: number;
}

/** Declares an endpoint and keeps the types of its schemas. */
export function endpoint<
  Params extends z.ZodType = z.ZodNever,
  Query extends z.ZodType = z.ZodNever,
  Body extends z.ZodType = z.ZodNever,
  Reply extends z.ZodType = z.ZodVoid,
>(definition: Endpoint<Params, Query, Body, Reply>): Endpoint<Params, Query, Body, Reply> {
  return definition;
}
