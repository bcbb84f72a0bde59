// The semaphore that makes the presentation service slow: order, bound, and clients that leave the queue.

import { describe, expect, it } from 'vitest'
import { ConnectionPool } from '../../src/demo/connections.ts'

const staying = (): AbortSignal => new AbortController().signal

describe('database connections', () => {
  it('are granted at once while some are free', async () => {
    const pool = new ConnectionPool(2, 0)
    expect(await pool.acquire(staying())).toBe(true)
    expect(await pool.acquire(staying())).toBe(true)
    expect(await pool.acquire(staying())).toBe(false)
  })

  it('go to those who wait in the order in which they came', async () => {
    const pool = new ConnectionPool(1, 3)
    const order: number[] = []
    await pool.acquire(staying())
    const waiting = [1, 2, 3].map(async (n) => {
      await pool.acquire(staying())
      order.push(n)
      pool.release()
    })
    expect(order).toEqual([])
    pool.release()
    await Promise.all(waiting)
    expect(order).toEqual([1, 2, 3])
  })

  it('are refused at once when as many wait as may', async () => {
    const pool = new ConnectionPool(1, 1)
    await pool.acquire(staying())
    const second = pool.acquire(staying())
    expect(await pool.acquire(staying())).toBe(false)
    pool.release()
    expect(await second).toBe(true)
  })

  it('pass over a client that has left the queue, and its place is free again', async () => {
    const pool = new ConnectionPool(1, 1)
    await pool.acquire(staying())
    const client = new AbortController()
    const leaving = pool.acquire(client.signal)
    client.abort()
    await expect(leaving).rejects.toThrow(/aborted/)
    const next = pool.acquire(staying())
    pool.release()
    expect(await next).toBe(true)
  })

  it('are not taken by a client that had gone before it asked', async () => {
    const pool = new ConnectionPool(1, 0)
    await expect(pool.acquire(AbortSignal.abort())).rejects.toThrow(/aborted/)
    expect(await pool.acquire(staying())).toBe(true)
  })

  it('are free again after each release, however many wait', async () => {
    const pool = new ConnectionPool(3, 100)
    let held = 0
    let most = 0
    await Promise.all(
      Array.from({ length: 50 }, async () => {
        await pool.acquire(staying())
        most = Math.max(most, ++held)
        await Promise.resolve()
        held--
        pool.release()
      }),
    )
    expect({ held, most }).toEqual({ held: 0, most: 3 })
  })
})
