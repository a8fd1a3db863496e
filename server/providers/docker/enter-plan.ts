/** What the first program of a container is told, as JSON in CDE_ENTER. */
export interface EnterPlan {
  owner: string;
  /** A uid, or a name of the image's, optionally with `:group`. */
  user: string;
  home: string;
}

/** What that program prints last, before the agent takes its place. */
export const enteredLine = 'cde: starting the agent';
/** In the root folder of the container: the agent's token, until the first program takes it. */
export const tokenFile = '.cde-token';
