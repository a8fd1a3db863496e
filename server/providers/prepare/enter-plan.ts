/** What the first program of a container, or the agent's unit of an instance, is told, as JSON in CDE_ENTER. */
export interface EnterPlan {
  owner: string;
  /** A uid, or a name of the image's, optionally with `:group`. */
  user: string;
  home: string;
  /** The name of the machine, if the platform does not give it one. */
  hostname?: string;
  /** Whether sudo makes the developer root without a password, whatever the image grants. */
  hasSudo?: boolean;
}

/** What that program prints last, before the agent takes its place. */
export const enteredLine = 'cde: starting the agent';
/** The error with which that program ended, among the last lines of the log; null: it printed none. */
export function findEnterFailure(log: string): { code: string; message: string } | null {
  const found = /^\{"code":"([a-z-]+)","message":("(?:[^"\\]|\\.)*")\}$/m.exec(log);
  try {
    return found && { code: found[1]!, message: JSON.parse(found[2]!) as string };
  } catch {
    return null;
  }
}
/** In the root folder of the workspace: the agent's token, until the first program takes it. */
export const tokenFile = '.cde-token';
