"""What people look at: terminal tables, figures and the HTML report."""
