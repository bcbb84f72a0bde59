// Deadlines of 25 ms under sweeps of 5 ms, with the clock in the test's hands.

import { describe, expect, it } from 'vitest'
import { Deadlines } from '../../src/core/deadlines.ts'

function watched() {
  const deadlines = new Deadlines(25)
  const expired: string[] = []
  const add = (nowMs: number, name: string) => deadlines.add(nowMs, () => expired.push(name))
  /** A sweep that was due at expectedMs, begins at nowMs and ends one poll later. */
  const sweep = (nowMs: number, expectedMs = nowMs, judgedMs = nowMs): number => {
    deadlines.mark(nowMs, expectedMs)
    return deadlines.judge(judgedMs)
  }
  return { deadlines, expired, add, sweep }
}

describe('Deadlines', () => {
  it('expires what is due, and nothing before', () => {
    const { add, sweep, expired } = watched()
    add(0, 'a')
    add(3, 'b')
    expect(sweep(24)).toBe(0)
    expect(sweep(25)).toBe(1)
    expect(sweep(28)).toBe(1)
    expect(expired).toEqual(['a', 'b'])
  })

  it('judges by the time of the mark, so that what came due during the poll has its own poll', () => {
    const { add, sweep, expired } = watched()
    add(0, 'a')
    expect(sweep(24, 24, 30)).toBe(0)
    expect(expired).toEqual([])
  })

  it('lets a reply count that the last poll brought', () => {
    const { add, deadlines, expired } = watched()
    const wait = add(0, 'a')
    deadlines.mark(30, 30)
    expect(deadlines.delete(wait)).toBe(true)
    expect(deadlines.judge(30)).toBe(0)
    expect(expired).toEqual([])
  })

  it('says of a reply after the deadline that it is late', () => {
    const { add, sweep, deadlines } = watched()
    const wait = add(0, 'a')
    sweep(30)
    expect(deadlines.delete(wait)).toBe(false)
    expect(deadlines.size).toBe(0)
  })

  it('does not count the time by which a sweep was itself late', () => {
    const { add, sweep, expired } = watched()
    add(0, 'a')
    expect(sweep(200, 5)).toBe(0)
    expect(sweep(219)).toBe(0)
    expect(sweep(220)).toBe(1)
    expect(expired).toEqual(['a'])
  })

  it('does so each time: a loop that stalls is no slow peer, however often it does', () => {
    const { add, sweep } = watched()
    add(0, 'a')
    expect(sweep(45, 5)).toBe(0)
    expect(sweep(90, 50)).toBe(0)
    expect(sweep(135, 95)).toBe(0)
    expect(sweep(144, 140)).toBe(0)
    expect(sweep(145)).toBe(1)
  })

  it('gives no wait more than the limit from the end of a stall, as to one that began in it', () => {
    const { add, sweep } = watched()
    add(0, 'a')
    add(190, 'b')
    expect(sweep(200, 5)).toBe(0)
    expect(sweep(220)).toBe(1)
    expect(sweep(224)).toBe(0)
    expect(sweep(225)).toBe(1)
  })

  it('counts a sweep that was late by no more than 12 ms', () => {
    const { add, sweep } = watched()
    add(0, 'a')
    expect(sweep(37, 25)).toBe(1)
  })

  it('does not count a stall between mark and judgement', () => {
    const { add, sweep } = watched()
    add(0, 'a')
    expect(sweep(25, 25, 225)).toBe(0)
    expect(sweep(225)).toBe(1)
  })

  it('ends a wait of an always late loop too, five sweeps on', () => {
    const { add, sweep } = watched()
    add(0, 'a')
    for (let nowMs = 40; nowMs < 200; nowMs += 40) expect(sweep(nowMs, nowMs - 35)).toBe(0)
    expect(sweep(200, 165)).toBe(1)
  })
})
