"""Numbers as people read them."""

__all__ = ["duration", "readable_size"]


def duration(seconds: float) -> str:
    """Write a time span shortly.

    Example:
        >>> duration(42.3), duration(4000), duration(200000)
        ('42 s', '1 h 07 min', '2 d 7 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"


def readable_size(num_bytes: float) -> str:
    """Write a number of bytes shortly.

    Example:
        >>> readable_size(3 * 2**20), readable_size(1.5 * 2**40)
        ('3.0 MiB', '1,536.0 GiB')
    """
    return f"{num_bytes / 2**30:,.1f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:,.1f} MiB"
