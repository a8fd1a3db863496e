import type { Build } from '@cde/api/workspaces.ts';

/** A timestamp as the API writes it, formatted by PostgreSQL: cheaper than a Date for each row of a list. */
export const isoTimestamp = (column: string) =>
  `to_char(${column} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`;

/**
 * The columns of a build that the API shows, for `builds b` and its `template_versions bv`. Not the rendered template,
 * which is many times the size of the rest.
 */
export const buildColumns = `
  b.id AS b_id, b.number AS b_number, b.transition AS b_transition, b.status AS b_status, b.stages AS b_stages,
  b.error AS b_error, b.initiator AS b_initiator, b.reason AS b_reason, b.cancel_requested AS b_cancel_requested,
  ${isoTimestamp('b.created_at')} AS b_created_at, ${isoTimestamp('b.started_at')} AS b_started_at,
  ${isoTimestamp('b.finished_at')} AS b_finished_at, bv.number AS b_version`;

export interface BuildColumns {
  b_id: string;
  b_number: number;
  b_transition: Build['transition'];
  b_status: Build['status'];
  b_stages: Build['stages'];
  b_error: Build['error'];
  b_initiator: string;
  b_reason: string;
  b_cancel_requested: boolean;
  b_created_at: string;
  b_started_at: string | null;
  b_finished_at: string | null;
  b_version: number;
}

/** A build as the API shows it. */
export function toBuild(row: BuildColumns, workspaceId: string): Build {
  return {
    id: row.b_id,
    workspaceId,
    number: row.b_number,
    transition: row.b_transition,
    status: row.b_status,
    templateVersion: row.b_version,
    stages: row.b_stages,
    error: row.b_error,
    initiator: row.b_initiator,
    reason: row.b_reason,
    cancelRequested: row.b_cancel_requested,
    createdAt: row.b_created_at,
    startedAt: row.b_started_at,
    finishedAt: row.b_finished_at,
  };
}
