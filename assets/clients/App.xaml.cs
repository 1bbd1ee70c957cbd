using System.Threading.Tasks;
using System.Windows;

namespace MyApp; // as in x:Class of App.xaml; braces around the class before C# 10

/// <summary>A WPF program under a license.</summary>
public partial class App : Application
{
    LicenseClient license;

    protected override async void OnStartup(StartupEventArgs arguments)
    {
        base.OnStartup(arguments);
        ShutdownMode = ShutdownMode.OnExplicitShutdown; // the question for the key is no main window
        // Both functions are called on other threads than that of the windows. The second does not wait for that one,
        // which may be waiting for it in OnExit.
        license = new LicenseClient(problem => Dispatcher.Invoke(() => AskForKey(problem)),
            message => Dispatcher.InvokeAsync(() => Stop(message)));
        try
        {
            await Task.Run(license.Start);
            MainWindow = new MainWindow(); // your program
            MainWindow.Show();
            ShutdownMode = ShutdownMode.OnMainWindowClose;
        }
        catch (LicenseClientException error)
        {
            Stop(error.Message);
        }
    }

    protected override void OnExit(ExitEventArgs arguments)
    {
        license.Dispose(); // ends the session, which frees the license at once
        base.OnExit(arguments);
    }

    static string AskForKey(string problem)
    {
        var key = new System.Windows.Controls.TextBox { MinWidth = 300 };
        var enter = new System.Windows.Controls.Button { Content = "OK", IsDefault = true };
        var panel = new System.Windows.Controls.StackPanel { Margin = new Thickness(12) };
        panel.Children.Add(new System.Windows.Controls.TextBlock { Text = problem + "\nLicense key:" });
        panel.Children.Add(key);
        panel.Children.Add(enter);
        var window = new Window { Title = "License", Content = panel, SizeToContent = SizeToContent.WidthAndHeight };
        enter.Click += (sender, arguments) => window.DialogResult = true;
        return window.ShowDialog() == true ? key.Text : null; // null: canceled
    }

    static void Stop(string message)
    {
        MessageBox.Show(message, "License");
        Current.Shutdown(1);
    }
}
