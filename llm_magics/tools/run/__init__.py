"""A call is executed: output captured, time limited, interrupts kept."""
