import type { ProviderError } from '../../provider.ts';

/** A failure that a retry would not fix; the step ends with its error. */
export class StepFailure extends Error {
  readonly error: ProviderError;
  constructor(error: ProviderError) {
    super(error.message);
    this.error = error;
  }
}
