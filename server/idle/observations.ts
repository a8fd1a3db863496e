/** The latest occurrence of a signal. */
export interface Occurrence {
  /** Unix time in ms. */
  at: number;
  /** Who or what caused it: a username, a process name. */
  by?: string;
}

/** A request to stay awake until a moment, made by `cde keep-awake`, its API or a program in the workspace. */
export interface Lease {
  id: string;
  /** Unix time in ms. */
  expiresAt: number;
  by: string;
}
