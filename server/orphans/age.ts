/** A younger object may still be being created by the server, a test or an admin. */
export const minAgeMs = 3600_000;
/** How long the platform and the database may disagree about a workspace. */
export const settleMs = 5 * 60_000;
