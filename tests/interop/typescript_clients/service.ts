/** Where a client connects, and as which user. */
export interface Service {
  readonly url: string;
  readonly user: string;
  readonly token: string;
}
