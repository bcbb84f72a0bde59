// How a target is looked at without a request of anybody's: does it take connections, does it answer on its health path?

import { type ErrorCode, GatewayError } from '../core/errors.ts'
import type { Connect } from './connect.ts'
import { type AnswerHead, type Carried, type ConnectionOwner, UpstreamConnection } from './connection.ts'
import { formatHead } from './request-head.ts'

/** What has been seen of a target. mute: it said nothing for all the time that it had; null: it could not be looked. */
export type Verdict = 'well' | 'unwell' | 'mute' | null

/** One look; done is called once, unless it is called off by what this gives back. */
export type Look = (done: (verdict: Verdict) => void) => () => void

/** Does it take connections? */
export function compileKnock(connect: Connect): Look {
  return (done) => {
    const socket = connect(
      () => {},
      (error) => {
        socket.on('error', () => {}).destroy()
        done(error === null ? 'well' : verdictOf(error))
      },
    )
    return () => void socket.on('error', () => {}).destroy()
  }
}

/** Does it answer a GET with a status from 200 to 399 in time? On a connection of its own, since a kept one may be the only
 *  one that still works. */
export function compileCheck(connect: Connect, origin: URL, path: string, timeoutMs: number): Look {
  const head = formatHead('GET', path, ['Host', origin.host, 'User-Agent', 'weirgate'], null)
  return (done) => {
    const check = new Check((verdict) => {
      clearTimeout(timer)
      connection.destroy()
      done(verdict)
    })
    const connection = new UpstreamConnection(connect, NOBODY)
    const timer = setTimeout(() => connection.fail(LATE), timeoutMs)
    connection.carry({ head, body: null, isLenient: true, isHandshake: false }, check, true)
    return () => {
      clearTimeout(timer)
      connection.destroy()
    }
  }
}

class Check implements Carried {
  readonly #finish: (verdict: Verdict) => void

  /** finish: called once. */
  constructor(finish: (verdict: Verdict) => void) {
    this.#finish = finish
  }

  onHead({ status }: AnswerHead): void {
    if (status >= 200) this.#finish(status < 400 ? 'well' : 'unwell')
  }

  onFailure(error: GatewayError): void {
    this.#finish(verdictOf(error))
  }

  onConnection(): void {}
  onSending(): void {}
  onSent(): void {}
  onAnswering(): void {}
  onData(): void {}
  onRoom(): void {}
  onEnd(): void {}
  onTargetOut(): void {}
}

function verdictOf({ code }: GatewayError): Verdict {
  // Who cannot make a connection for reasons of its own has not seen the target.
  if (code === 'overloaded') return null
  return isSilence(code) ? 'mute' : 'unwell'
}

/** True where a failure is that nothing came, for as long as there was time. */
export const isSilence = (code: ErrorCode): boolean => code.startsWith('timeout_')

const NOBODY: ConnectionOwner = { onFree() {}, onUpgraded() {}, onLost() {}, onGone() {} }
const LATE = new GatewayError('timeout_total', 'The check was not answered in time.')
